/* Flash attention for heads of up to 512 columns. */
#include "flash.cl"

#define HEAD       512
#define ROWS       1
#define SUB_GROUPS 16
#define KEYS       16
#include "flash_types.cl"
