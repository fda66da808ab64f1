/* Flash attention for heads of up to 64 columns. */
#include "flash.cl"

#define HEAD       64
#define ROWS       4
#define SUB_GROUPS 16
#define KEYS       32
#include "flash_types.cl"
