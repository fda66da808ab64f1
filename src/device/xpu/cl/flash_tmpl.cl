/* One flash-attention kernel. Defined before it:
   FLASH        the kernel's name
   TYPE, LOAD, STORE  f32 or bf16: of q, k, v and dst; from it and to it
   HEAD         head_dim up to which it serves; what is missing is read as zeros
   ROWS         queries of a sub-group
   SUB_GROUPS   of a work-group, which share tiles of K and V
   KEYS         of a tile, a multiple of LANES

   A lane holds the scores of one key (of every LANES) for all ROWS queries, then one column (of
   every LANES) of the output. Queries and probabilities are read from local memory at addresses
   that all lanes of a sub-group share: one broadcast each. */

#define TILE_STRIDE (KEYS + 1) /* of K, turned: keys of one column lie in a row */
#define WIDTH       LANES
#define RESULT(r, j) STORE(out[r][j] * factor)
#define TILE_SIZE   (HEAD * TILE_STRIDE > KEYS * HEAD ? HEAD * TILE_STRIDE : KEYS * HEAD)

__attribute__((reqd_work_group_size(LANES * SUB_GROUPS, 1, 1))) ONE_ROW_PER_SUB_GROUP kernel void
FLASH(global TYPE *dst, global const TYPE *q, global const TYPE *k, global const TYPE *v,
      global const float *bias, global float *lse, float scale, int causal, int head_dim,
      long q_len, long kv_len, long q_stride, long k_stride, long v_stride, long dst_stride,
      long bias_head, long bias_q, long bias_k)
{
    local float tile[TILE_SIZE]; /* K [HEAD][KEYS], then V [KEYS][HEAD] */
    local float all_queries[SUB_GROUPS * ROWS * HEAD];
    local float all_weights[SUB_GROUPS * ROWS * KEYS];
    const int lane = get_sub_group_local_id(), group = get_sub_group_id();
    const long head = get_group_id(1);
    const long first_row = get_group_id(0) * (SUB_GROUPS * ROWS) + group * ROWS;
    const long last_row = min(q_len, (long)(get_group_id(0) + 1) * (SUB_GROUPS * ROWS)) - 1;
    const long shift = kv_len - q_len;
    const long seen = causal ? min(kv_len, last_row + shift + 1) : kv_len;
    local float *queries = all_queries + group * ROWS * HEAD;
    local float *weights = all_weights + group * ROWS * KEYS;
    float out[ROWS][HEAD / LANES], most[ROWS], sum[ROWS];

    q += head * head_dim;
    k += head * head_dim;
    v += head * head_dim;
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        most[r] = -INFINITY;
        sum[r] = 0;
        UNROLL
        for (int j = 0; j < HEAD / LANES; j++) {
            out[r][j] = 0;
        }
        FEW_AT_A_TIME
        for (int j = 0; j < HEAD / LANES; j++) {
            int d = j * LANES + lane;
            bool real = first_row + r < q_len && d < head_dim;
            queries[r * HEAD + d] =
                real ? LOAD(q[(first_row + r) * q_stride + d]) * scale * LOG2_E : 0.0f;
        }
    }
    for (long first = 0; first < seen; first += KEYS) {
        const int count = (int)min((long)KEYS, seen - first);
        barrier(CLK_LOCAL_MEM_FENCE);
        UNROLL
        for (int i = 0; i < KEYS / SUB_GROUPS; i++) {
            const int key = i * SUB_GROUPS + group;
            FEW_AT_A_TIME
            for (int j = 0; j < HEAD / LANES; j++) {
                int d = j * LANES + lane;
                bool real = key < count && d < head_dim;
                tile[d * TILE_STRIDE + key] =
                    real ? LOAD(k[(first + key) * k_stride + d]) : 0.0f;
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        float score[ROWS][KEYS / LANES];
        UNROLL
        for (int c = 0; c < KEYS / LANES; c++) {
            float s[ROWS];
            UNROLL
            for (int r = 0; r < ROWS; r++) {
                s[r] = 0;
            }
            for (int d = 0; d < HEAD; d += 4) {
                local const float *t = tile + d * TILE_STRIDE + c * LANES + lane;
                float t0 = t[0], t1 = t[TILE_STRIDE], t2 = t[2 * TILE_STRIDE],
                      t3 = t[3 * TILE_STRIDE];
                UNROLL
                for (int r = 0; r < ROWS; r++) {
                    local const float *x = queries + r * HEAD + d;
                    s[r] = fma(x[3], t3, fma(x[2], t2, fma(x[1], t1, fma(x[0], t0, s[r]))));
                }
            }
            UNROLL
            for (int r = 0; r < ROWS; r++) {
                score[r][c] = s[r];
            }
        }
        float shrink[ROWS];
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            const long row = first_row + r;
            const long limit = causal ? min(seen, row + shift + 1) : seen;
            float top = most[r];
            UNROLL
            for (int c = 0; c < KEYS / LANES; c++) {
                const long key = first + c * LANES + lane;
                bool real = key < limit && row < q_len;
                if (bias != 0 && real) {
                    score[r][c] +=
                        bias[head * bias_head + row * bias_q + key * bias_k] * LOG2_E;
                }
                score[r][c] = real ? score[r][c] : -INFINITY;
                top = fmax(top, score[r][c]);
            }
            top = sub_group_reduce_max(top);
            const float base = top == -INFINITY ? 0.0f : top; /* nothing was seen so far */
            shrink[r] = exp2(most[r] - base);
            most[r] = top;
            sum[r] *= shrink[r];
            UNROLL
            for (int c = 0; c < KEYS / LANES; c++) {
                float weight = exp2(score[r][c] - base);
                sum[r] += weight;
                weights[r * KEYS + c * LANES + lane] = weight;
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        UNROLL
        for (int i = 0; i < KEYS / SUB_GROUPS; i++) {
            const int key = i * SUB_GROUPS + group;
            FEW_AT_A_TIME
            for (int j = 0; j < HEAD / LANES; j++) {
                int d = j * LANES + lane;
                bool real = key < count && d < head_dim;
                tile[key * HEAD + d] =
                    real ? LOAD(v[(first + key) * v_stride + d]) : 0.0f;
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        UNROLL
        for (int j = 0; j < HEAD / LANES; j++) {
            float o[ROWS];
            UNROLL
            for (int r = 0; r < ROWS; r++) {
                o[r] = out[r][j] * shrink[r];
            }
            for (int key = 0; key < KEYS; key += 4) {
                local const float *t = tile + key * HEAD + j * LANES + lane;
                float t0 = t[0], t1 = t[HEAD], t2 = t[2 * HEAD], t3 = t[3 * HEAD];
                UNROLL
                for (int r = 0; r < ROWS; r++) {
                    local const float *p = weights + r * KEYS + key;
                    o[r] = fma(p[3], t3, fma(p[2], t2, fma(p[1], t1, fma(p[0], t0, o[r]))));
                }
            }
            UNROLL
            for (int r = 0; r < ROWS; r++) {
                out[r][j] = o[r];
            }
        }
    }
#include "flash_tail_tmpl.cl"
}

#undef TILE_STRIDE
#undef TILE_SIZE
#undef WIDTH
#undef RESULT
#undef FLASH
#undef TYPE
#undef LOAD
#undef STORE
