/* Flash attention on matrix instructions of 8 lanes, bf16. The method is flash.cl's. */
#include "flash_xmx.cl"

#define ELEMENT int
#define WIDTH           8
#define BROADCAST(x, k) (bf16)((uint)sub_group_broadcast(x, k / 2) >> k % 2 * 16)
#define QUERY(row, start, lane, head_dim)                                                      \
    pair_at(row, start + 2 * lane, start + 2 * lane + 1, head_dim)
#define WEIGHT(score, t, r)                                                                    \
    (int)((uint)bf16_from_f32(score[2 * t][r]) | (uint)bf16_from_f32(score[2 * t + 1][r]) << 16)
#define LOW_KEY(pair) ((pair) / 8 * 16 + (pair) % 8)
#define HIGH_STEP     8

DEFINE_MAD(int4, float4, 4, BROADCAST)
DEFINE_MAD(int2, float2, 2, BROADCAST)

#define FLASH      flash_xmx8_64
#define HEAD       64
#define ROWS       4
#define SUB_GROUPS 8
#define OPERAND    int4
#define SUMS       float4
#include "flash_xmx_tmpl.cl"

#define FLASH      flash_xmx8_128
#define HEAD       128
#define ROWS       2
#define SUB_GROUPS 16
#define OPERAND    int2
#define SUMS       float2
#include "flash_xmx_tmpl.cl"
