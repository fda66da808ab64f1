/* Flash attention for heads of up to 256 columns. */
#include "flash.cl"

#define HEAD       256
#define ROWS       2
#define SUB_GROUPS 16
#define KEYS       16
#include "flash_types.cl"
