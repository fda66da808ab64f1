/* Flash attention for heads of up to 128 columns. */
#include "flash.cl"

#define HEAD       128
#define ROWS       4
#define SUB_GROUPS 16
#define KEYS       32
#include "flash_types.cl"
