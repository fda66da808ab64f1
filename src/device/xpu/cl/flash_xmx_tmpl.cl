/* A flash-attention kernel on matrix instructions, for flash_xmx16.cl and flash_xmx8.cl, which
   define:
   WIDTH        lanes of a sub-group: 16 (Xe-HPC, Xe2) or 8 (Xe-HPG)
   FLASH        the kernel's name
   HEAD         head_dim up to which it serves; what is missing is read as zeros
   ROWS         queries of a sub-group: 8, or 4 or 2 where registers are few
   SUB_GROUPS   of a work-group, which share tiles of K and V

   One instruction adds A [ROWS][16] B [16][WIDTH] to sums [ROWS][WIDTH]. A lane holds column
   `lane` of the sums, and of B eight pairs of rows. Of A it holds column `lane`, or columns 2 *
   lane and 2 * lane + 1 where there are 8. So a lane's pairs of K turned are neighbours in a row
   of K, and sums of scores are A of the next product as they lie. There, 8 lanes give column 2 *
   lane to key `lane` of 16 and the next to key 8 + `lane`; pairs of V follow that order. */

#define KEYS       32
#define DEPTH      16 /* of one instruction */
#define KEY_STRIDE (HEAD / 2 + 4)
#define RESULT(r, j) bf16_from_f32(out[j][r] * factor)

__attribute__((reqd_work_group_size(WIDTH * SUB_GROUPS, 1, 1)))
__attribute__((intel_reqd_sub_group_size(WIDTH))) kernel void
FLASH(global bf16 *dst, global const bf16 *q, global const bf16 *k, global const bf16 *v,
      global const float *bias, global float *lse, float scale, int causal, int head_dim,
      long q_len, long kv_len, long q_stride, long k_stride, long v_stride, long dst_stride,
      long bias_head, long bias_q, long bias_k)
{
    local int keys[KEYS * KEY_STRIDE];   /* [key][pair of columns] */
    local int values[KEYS / 2 * HEAD];   /* [pair of keys][column] */
    local ELEMENT all_queries[SUB_GROUPS * HEAD / DEPTH * ROWS * WIDTH];
    const int lane = get_sub_group_local_id(), group = get_sub_group_id();
    const long head = get_group_id(1);
    const long first_row = get_group_id(0) * (SUB_GROUPS * ROWS) + group * ROWS;
    const long last_row = min(q_len, (long)(get_group_id(0) + 1) * (SUB_GROUPS * ROWS)) - 1;
    const long shift = kv_len - q_len;
    const long seen = causal ? min(kv_len, last_row + shift + 1) : kv_len;
    SUMS out[HEAD / WIDTH];
    float most[ROWS], sum[ROWS];
    local ELEMENT *queries = all_queries + group * (HEAD / DEPTH * ROWS * WIDTH) + lane;

    q += head * head_dim;
    k += head * head_dim;
    v += head * head_dim;
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        most[r] = -INFINITY;
        sum[r] = 0;
        FEW_AT_A_TIME
        for (int c = 0; c < HEAD / DEPTH; c++) {
            queries[(c * ROWS + r) * WIDTH] =
                first_row + r < q_len
                    ? QUERY(q + (first_row + r) * q_stride, c * DEPTH, lane, head_dim)
                    : 0;
        }
    }
    UNROLL
    for (int j = 0; j < HEAD / WIDTH; j++) {
        out[j] = 0;
    }
    for (long first = 0; first < seen; first += KEYS) {
        const int count = (int)min((long)KEYS, seen - first);
        barrier(CLK_LOCAL_MEM_FENCE);
        UNROLL
        for (int i = 0; i < KEYS / SUB_GROUPS; i++) {
            const int key = i * SUB_GROUPS + group;
            FEW_AT_A_TIME
            for (int j = 0; j < HEAD / 2 / WIDTH; j++) {
                int d = 2 * (j * WIDTH + lane);
                keys[key * KEY_STRIDE + d / 2] =
                    key < count ? pair_at(k + (first + key) * k_stride, d, d + 1, head_dim) : 0;
            }
        }
        UNROLL
        for (int i = 0; i < KEYS / 2 / SUB_GROUPS; i++) {
            const int pair = i * SUB_GROUPS + group, low = LOW_KEY(pair), high = low + HIGH_STEP;
            FEW_AT_A_TIME
            for (int j = 0; j < HEAD / WIDTH; j++) {
                int d = j * WIDTH + lane;
                bf16 a = d < head_dim && low < count ? v[(first + low) * v_stride + d] : 0;
                bf16 b = d < head_dim && high < count ? v[(first + high) * v_stride + d] : 0;
                values[pair * HEAD + d] = (int)((uint)a | (uint)b << 16);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        SUMS score[KEYS / WIDTH];
        UNROLL
        for (int n = 0; n < KEYS / WIDTH; n++) {
            score[n] = 0;
        }
        for (int c = 0; c < HEAD / DEPTH; c++) {
            OPERAND a;
            UNROLL
            for (int r = 0; r < ROWS; r++) {
                a[r] = queries[(c * ROWS + r) * WIDTH];
            }
            UNROLL
            for (int n = 0; n < KEYS / WIDTH; n++) {
                int8 b = vload8(0, keys + (n * WIDTH + lane) * KEY_STRIDE + c * DEPTH / 2);
                score[n] = MAD(a, b, score[n]);
            }
        }
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            const long row = first_row + r;
            const long limit = causal ? min(seen, row + shift + 1) : seen;
            float top = most[r];
            UNROLL
            for (int n = 0; n < KEYS / WIDTH; n++) {
                const long key = first + n * WIDTH + lane;
                bool real = key < limit && row < q_len;
                float s = score[n][r] * (scale * LOG2_E);
                if (bias != 0 && real) {
                    s += bias[head * bias_head + row * bias_q + key * bias_k] * LOG2_E;
                }
                score[n][r] = real ? s : -INFINITY;
                top = fmax(top, score[n][r]);
            }
            top = sub_group_reduce_max(top);
            const float base = top == -INFINITY ? 0.0f : top; /* nothing was seen so far */
            const float shrink = exp2(most[r] - base);
            most[r] = top;
            sum[r] *= shrink;
            UNROLL
            for (int n = 0; n < KEYS / WIDTH; n++) {
                score[n][r] = exp2(score[n][r] - base);
                sum[r] += score[n][r];
            }
            UNROLL
            for (int j = 0; j < HEAD / WIDTH; j++) {
                out[j][r] *= shrink;
            }
        }
        UNROLL
        for (int t = 0; t < KEYS / DEPTH; t++) {
            OPERAND weight;
            UNROLL
            for (int r = 0; r < ROWS; r++) {
                weight[r] = WEIGHT(score, t, r);
            }
            UNROLL
            for (int j = 0; j < HEAD / WIDTH; j++) {
                int8 b;
                UNROLL
                for (int i = 0; i < DEPTH / 2; i++) {
                    b[i] = values[(t * (DEPTH / 2) + i) * HEAD + j * WIDTH + lane];
                }
                out[j] = MAD(weight, b, out[j]);
            }
        }
    }
#include "flash_tail_tmpl.cl"
}

#undef KEYS
#undef DEPTH
#undef KEY_STRIDE
#undef RESULT
#undef FLASH
#undef HEAD
#undef ROWS
#undef SUB_GROUPS
#undef OPERAND
#undef SUMS
