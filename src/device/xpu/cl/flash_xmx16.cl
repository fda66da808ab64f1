/* Flash attention on matrix instructions of 16 lanes, bf16. The method is flash.cl's. */
#include "flash_xmx.cl"

#define ELEMENT short
#define WIDTH                             16
#define BROADCAST(x, k)                   (bf16) sub_group_broadcast((int)(x), k)
#define QUERY(row, start, lane, head_dim) (start + lane < head_dim ? (short)(row)[start + lane] : 0)
#define WEIGHT(score, t, r)               (short)bf16_from_f32(score[t][r])
#define LOW_KEY(pair)                     (2 * (pair))
#define HIGH_STEP                         1

DEFINE_MAD(short8, float8, 8, BROADCAST)
DEFINE_MAD(short2, float2, 2, BROADCAST)

#define FLASH      flash_xmx16_64
#define HEAD       64
#define ROWS       8
#define SUB_GROUPS 8
#define OPERAND    short8
#define SUMS       float8
#include "flash_xmx_tmpl.cl"

#define FLASH      flash_xmx16_128
#define HEAD       128
#define ROWS       2
#define SUB_GROUPS 16
#define OPERAND    short2
#define SUMS       float2
#include "flash_xmx_tmpl.cl"
