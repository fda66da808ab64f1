/* Normalisation in plain C. */
#include "kernels/norm.h"

#include <math.h>

#include "kernels/x86/norm_x86.h"
#include "tensor/convert.h"

static float load(const void *base, dk_dtype type, int64_t i)
{
    return type == DK_F32 ? ((const float *)base)[i]
                          : dk_f32_from_bf16(((const uint16_t *)base)[i]);
}

static void store(void *base, dk_dtype type, int64_t i, float value)
{
    if (type == DK_F32) {
        ((float *)base)[i] = value;
    } else {
        ((uint16_t *)base)[i] = dk_bf16_from_f32(value);
    }
}

static float activate(float x, dk_activation activation)
{
    switch (activation) {
    case DK_ACT_SILU:
        return x / (1.0f + expf(-x));
    case DK_ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    default:
        return x;
    }
}

/* The row's mean (0 unless LAYER) and the factor that normalises it. */
static void statistics(const dk_norm_args *args, int64_t start, float *mean, float *factor)
{
    float n = (float)args->cols, sum = 0, squares = 0;
    *mean = 0;
    if (args->kind == DK_NORM_LAYER) {
        for (int64_t i = 0; i < args->cols; i++) {
            sum += load(args->src, args->src_type, start + i);
        }
        *mean = sum / n;
    }
    for (int64_t i = 0; i < args->cols; i++) {
        float x = load(args->src, args->src_type, start + i) - *mean;
        squares += x * x;
    }
    *factor = dk_norm_factor(args, squares);
}

static void norm_c(const dk_norm_args *args, int64_t row0, int64_t row1)
{
    for (int64_t row = row0; row < row1; row++) {
        int64_t start = row * args->cols, modulation = row * args->modulation_stride;
        float mean, factor;
        statistics(args, start, &mean, &factor);
        for (int64_t i = 0; i < args->cols; i++) {
            float y = (load(args->src, args->src_type, start + i) - mean) * factor;
            if (args->weight != NULL) {
                y *= args->weight[i];
            }
            if (args->bias != NULL) {
                y += args->bias[i];
            }
            if (args->scale != NULL) {
                y *= 1.0f + args->scale[modulation + i];
            }
            if (args->shift != NULL) {
                y += args->shift[modulation + i];
            }
            store(args->dst, args->dst_type, start + i, activate(y, args->activation));
        }
    }
}

static float sum_squares(const dk_norm_rope_args *args, int64_t start, int64_t count)
{
    float squares = 0;
    for (int64_t i = 0; i < count; i++) {
        float x = load(args->data, args->type, start + i);
        squares += x * x;
    }
    return squares;
}

static void rms_part(const dk_norm_rope_args *args, int64_t start, int64_t count, float factor)
{
    for (int64_t i = 0; i < count; i++) {
        float x = load(args->data, args->type, start + i);
        store(args->data, args->type, start + i, x * factor * args->weight[i]);
    }
}

static void rotate_head(const dk_norm_rope_args *args, int64_t start, int64_t row)
{
    int half = args->head_dim / 2;
    for (int i = 0; i < half; i++) {
        float c = args->cos[row * half + i], s = args->sin[row * half + i];
        float x0 = load(args->data, args->type, start + 2 * i);
        float x1 = load(args->data, args->type, start + 2 * i + 1);
        store(args->data, args->type, start + 2 * i, x0 * c - x1 * s);
        store(args->data, args->type, start + 2 * i + 1, x1 * c + x0 * s);
    }
}

static void norm_rope_c(const dk_norm_rope_args *args, int64_t row0, int64_t row1)
{
    for (int64_t row = row0; row < row1; row++) {
        int64_t start = row * args->stride;
        if (args->weight != NULL && !args->per_head) {
            int64_t cols = (int64_t)args->heads * args->head_dim;
            float own = args->squares == NULL ? sum_squares(args, start, cols) : 0.0f;
            rms_part(args, start, cols, dk_norm_rope_factor(args, row, own));
        }
        for (int head = 0; head < args->heads; head++) {
            int64_t at = start + (int64_t)head * args->head_dim;
            if (args->weight != NULL && args->per_head) {
                float squares = sum_squares(args, at, args->head_dim);
                rms_part(args, at, args->head_dim,
                         1.0f / sqrtf(squares / (float)args->head_dim + args->eps));
            }
            if (args->cos != NULL) {
                rotate_head(args, at, row);
            }
        }
    }
}

static void row_squares_c(const dk_norm_rope_args *args, float *squares, int64_t row0,
                          int64_t row1)
{
    for (int64_t row = row0; row < row1; row++) {
        squares[row] =
            sum_squares(args, row * args->stride, (int64_t)args->heads * args->head_dim);
    }
}

void dk_norm_kernels_init(dk_norm_kernels *kernels, unsigned cpu_flags)
{
    kernels->norm = norm_c;
    kernels->norm_rope = norm_rope_c;
    kernels->row_squares = row_squares_c;
    dk_norm_kernels_init_x86(kernels, cpu_flags);
}
