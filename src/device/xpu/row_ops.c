/* The XPU device's row-wise and element-wise operations: each is one kernel of ours. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "device/xpu/xpu.h"
#include "tensor/convert.h"

enum { LOCAL = 256, LANES = 16, ROWS_PER_GROUP = 16 }; /* LANES: of cl/common.h */

static void launch_flat(dk_xpu *xpu, dk_xpu_kernel kernel, dk_xpu_args *args, int64_t count)
{
    if (count > 0) {
        dk_xpu_launch(xpu, kernel, args, (size_t[]){(size_t)(count + LOCAL - 1) / LOCAL, 1, 1},
                      (size_t[]){LOCAL, 1, 1});
    }
}

void dk_xpu_launch_rows(dk_xpu *xpu, dk_xpu_kernel kernel, dk_xpu_args *args, int64_t rows)
{
    if (rows > 0) {
        size_t groups = (size_t)(rows + ROWS_PER_GROUP - 1) / ROWS_PER_GROUP;
        dk_xpu_launch(xpu, kernel, args, (size_t[]){groups, 1, 1},
                      (size_t[]){LANES * ROWS_PER_GROUP, 1, 1});
    }
}

/* In a dry run addresses are nobody's. */
static void operand(dk_xpu *xpu, dk_xpu_args *args, const void *address)
{
    dk_xpu_arg_pointer(args, xpu->head.dry ? NULL : dk_xpu_operand(xpu, address));
}

/* The same copy with axes of length 1 left out, and those that both sides walk as one made one;
   at least three axes, the first of length 1 where there are fewer. */
static void simplify(dk_permute_args *out, const dk_permute_args *args)
{
    enum { LEAST = 3 };
    int axes = 0;
    *out = *args;
    for (int i = 0; i < args->rank; i++) {
        int64_t length = args->shape[i];
        int64_t from = args->src_stride[i], to = args->dst_stride[i];
        if (length == 1) {
            continue;
        }
        bool joins = axes > 0 && out->src_stride[axes - 1] == length * from &&
                     out->dst_stride[axes - 1] == length * to;
        axes -= joins;
        out->shape[axes] = joins ? out->shape[axes] * length : length;
        out->src_stride[axes] = from;
        out->dst_stride[axes] = to;
        axes++;
    }
    int missing = axes < LEAST ? LEAST - axes : 0;
    for (int i = axes + missing - 1; i >= 0; i--) {
        bool there = i >= missing;
        out->shape[i] = there ? out->shape[i - missing] : 1;
        out->src_stride[i] = there ? out->src_stride[i - missing] : 0;
        out->dst_stride[i] = there ? out->dst_stride[i - missing] : 0;
    }
    out->rank = axes + missing;
}

static void launch_permute3(dk_xpu *xpu, dk_xpu_args *a, const dk_permute_args *args)
{
    const int64_t *shape = args->shape;
    size_t x = LANES, y = 1;
    for (int i = 0; i < 3; i++) {
        dk_xpu_arg_i32(a, (int32_t)shape[i]);
    }
    for (int i = 0; i < 3; i++) {
        dk_xpu_arg_i64(a, args->src_stride[i]);
    }
    for (int i = 0; i < 3; i++) {
        dk_xpu_arg_i64(a, args->dst_stride[i]);
    }
    while (x < LOCAL && (int64_t)x < shape[2]) {
        x *= 2;
    }
    while (x * y < LOCAL && (int64_t)y < shape[1]) {
        y *= 2;
    }
    dk_xpu_launch(xpu,
                  dk_xpu_variant(DK_XPU_PERMUTE3_F32_F32, args->dst_type == DK_BF16,
                                 args->src_type == DK_BF16),
                  a,
                  (size_t[]){((size_t)shape[2] + x - 1) / x, ((size_t)shape[1] + y - 1) / y,
                             (size_t)shape[0]},
                  (size_t[]){x, y, 1});
}

/* dst is a device address; args name the rest. */
static void launch_permute(dk_xpu *xpu, void *dst, const dk_permute_args *args)
{
    enum { AXES = 8 };
    dk_permute_args simple;
    dk_xpu_args a = {0};
    int64_t count = 1, longest = 1;
    simplify(&simple, args);
    for (int i = 0; i < simple.rank; i++) {
        count *= simple.shape[i];
        longest = simple.shape[i] > longest ? simple.shape[i] : longest;
    }
    if (count == 0) {
        return;
    }
    dk_xpu_arg_pointer(&a, dst);
    operand(xpu, &a, args->src);
    if (simple.rank == 3 && longest <= INT32_MAX / 2) {
        launch_permute3(xpu, &a, &simple);
        return;
    }
    int first = AXES - simple.rank; /* axes before it have length 1 */
    for (int i = 0; i < AXES; i++) {
        dk_xpu_arg_i64(&a, i < first ? 1 : simple.shape[i - first]);
    }
    for (int i = 0; i < AXES; i++) {
        dk_xpu_arg_i64(&a, i < first ? 0 : simple.src_stride[i - first]);
    }
    for (int i = 0; i < AXES; i++) {
        dk_xpu_arg_i64(&a, i < first ? 0 : simple.dst_stride[i - first]);
    }
    dk_xpu_arg_i64(&a, count);
    launch_flat(xpu,
                dk_xpu_variant(DK_XPU_PERMUTE_F32_F32, args->dst_type == DK_BF16,
                               args->src_type == DK_BF16),
                &a, count);
}

void dk_xpu_permute(dk_device *device, const dk_permute_args *args)
{
    dk_xpu *xpu = dk_xpu_of(device);
    void *dst = dk_xpu_operand(xpu, args->dst);
    if (dst != NULL) {
        launch_permute(xpu, dst, args);
    }
}

void dk_xpu_cast(dk_xpu *xpu, void *scratch, dk_dtype dst_type, const void *src,
                 dk_dtype src_type, int64_t rows, int64_t cols, int64_t stride)
{
    if (stride != cols) {
        launch_permute(xpu, scratch,
                       &(dk_permute_args){.rank = 2,
                                          .shape = {rows, cols},
                                          .src_stride = {stride, 1},
                                          .dst_stride = {cols, 1},
                                          .src = src,
                                          .src_type = src_type,
                                          .dst_type = dst_type});
        return;
    }
    dk_xpu_args args = {0};
    dk_xpu_arg_pointer(&args, scratch);
    operand(xpu, &args, src);
    dk_xpu_arg_i32(&args, DK_ACT_NONE);
    dk_xpu_arg_i64(&args, rows * cols);
    launch_flat(xpu,
                dk_xpu_variant(DK_XPU_MAP_F32_F32, dst_type == DK_BF16, src_type == DK_BF16),
                &args, rows * cols);
}

void dk_xpu_quantize_rows(dk_xpu *xpu, void *scratch, void *scales, const void *src,
                          dk_dtype src_type, int64_t rows, int64_t cols, int64_t stride)
{
    dk_xpu_args args = {0};
    dk_xpu_arg_pointer(&args, scratch);
    dk_xpu_arg_pointer(&args, scales);
    operand(xpu, &args, src);
    dk_xpu_arg_i32(&args, (int32_t)rows);
    dk_xpu_arg_i32(&args, (int32_t)cols);
    dk_xpu_arg_i64(&args, stride);
    dk_xpu_launch_rows(
        xpu, src_type == DK_BF16 ? DK_XPU_QUANTIZE_ROWS_BF16 : DK_XPU_QUANTIZE_ROWS_F32, &args,
        rows);
}

void dk_xpu_epilogue(dk_xpu *xpu, const dk_xpu_epilogue_args *args)
{
    dk_xpu_args a = {0};
    operand(xpu, &a, args->dst);
    dk_xpu_arg_pointer(&a, args->sums);
    dk_xpu_arg_pointer(&a, args->row_scale);
    operand(xpu, &a, args->bias);
    operand(xpu, &a, args->multiply);
    operand(xpu, &a, args->gate);
    operand(xpu, &a, args->residual);
    dk_xpu_arg_i32(&a, (int32_t)args->activation);
    dk_xpu_arg_i64(&a, args->rows);
    dk_xpu_arg_i64(&a, args->cols);
    dk_xpu_arg_i64(&a, args->gate_stride);
    dk_xpu_arg_i64(&a, args->block);
    dk_xpu_arg_i64(&a, args->block_stride);
    dk_xpu_arg_i64(&a, args->stride);
    dk_xpu_launch(xpu, args->dst_type == DK_BF16 ? DK_XPU_EPILOGUE_BF16 : DK_XPU_EPILOGUE_F32,
                  &a,
                  (size_t[]){(size_t)(args->cols + 63) / 64, (size_t)(args->rows + 3) / 4, 1},
                  (size_t[]){64, 4, 1});
}

void dk_xpu_map(dk_device *device, void *dst, dk_dtype dst_type, const void *src,
                dk_dtype src_type, dk_activation activation, int64_t count)
{
    dk_xpu *xpu = dk_xpu_of(device);
    dk_xpu_args args = {0};
    if (dst_type == src_type && activation == DK_ACT_NONE) {
        void *to = dk_xpu_operand(xpu, dst);
        const void *from = dk_xpu_operand(xpu, src);
        if (to != NULL && from != NULL && to != from) {
            dk_xpu_move(xpu, to, from, (size_t)count * dk_dtype_bytes(src_type));
        }
        return;
    }
    operand(xpu, &args, dst);
    operand(xpu, &args, src);
    dk_xpu_arg_i32(&args, (int32_t)activation);
    dk_xpu_arg_i64(&args, count);
    launch_flat(xpu,
                dk_xpu_variant(DK_XPU_MAP_F32_F32, dst_type == DK_BF16, src_type == DK_BF16),
                &args, count);
}

void dk_xpu_combine(dk_device *device, float *dst, const float *const *src, const float *coef,
                    int terms, int64_t count)
{
    dk_xpu *xpu = dk_xpu_of(device);
    dk_xpu_args args = {0};
    assert(terms >= 1 && terms <= DK_COMBINE_MAX_TERMS);
    operand(xpu, &args, dst);
    for (int i = 0; i < DK_COMBINE_MAX_TERMS; i++) {
        operand(xpu, &args, src[i < terms ? i : 0]);
    }
    for (int i = 0; i < DK_COMBINE_MAX_TERMS; i++) {
        dk_xpu_arg_f32(&args, i < terms ? coef[i] : 0.0f);
    }
    dk_xpu_arg_i32(&args, terms);
    dk_xpu_arg_i64(&args, count);
    launch_flat(xpu, DK_XPU_COMBINE, &args, count);
}

void dk_xpu_norm(dk_device *device, const dk_norm_args *args)
{
    dk_xpu *xpu = dk_xpu_of(device);
    dk_xpu_args a = {0};
    operand(xpu, &a, args->dst);
    operand(xpu, &a, args->src);
    operand(xpu, &a, args->weight);
    operand(xpu, &a, args->bias);
    operand(xpu, &a, args->scale);
    operand(xpu, &a, args->shift);
    dk_xpu_arg_i32(&a, (int32_t)args->kind);
    dk_xpu_arg_i32(&a, (int32_t)args->activation);
    dk_xpu_arg_i32(&a, (int32_t)args->rows);
    dk_xpu_arg_i32(&a, (int32_t)args->cols);
    dk_xpu_arg_i64(&a, args->modulation_stride);
    dk_xpu_arg_f32(&a, args->eps);
    dk_xpu_launch_rows(xpu,
                       dk_xpu_variant(DK_XPU_NORM_F32_F32, args->dst_type == DK_BF16,
                                      args->src_type == DK_BF16),
                       &a, args->rows);
}

void dk_xpu_norm_rope(dk_device *device, const dk_norm_rope_args *args)
{
    dk_xpu *xpu = dk_xpu_of(device);
    dk_xpu_args a = {0};
    operand(xpu, &a, args->data);
    operand(xpu, &a, args->weight);
    operand(xpu, &a, args->cos);
    operand(xpu, &a, args->sin);
    dk_xpu_arg_i32(&a, args->heads);
    dk_xpu_arg_i32(&a, args->head_dim);
    dk_xpu_arg_i32(&a, args->per_head);
    dk_xpu_arg_i32(&a, (int32_t)args->rows);
    dk_xpu_arg_i32(&a, (uintptr_t)args->data % sizeof(uint32_t) == 0 && args->stride % 2 == 0);
    dk_xpu_arg_i64(&a, args->stride);
    dk_xpu_arg_f32(&a, args->eps);
    operand(xpu, &a, args->squares);
    dk_xpu_arg_i64(&a, args->whole_cols);
    dk_xpu_launch_rows(xpu,
                       args->type == DK_BF16 ? DK_XPU_NORM_ROPE_BF16 : DK_XPU_NORM_ROPE_F32, &a,
                       args->rows);
}

void dk_xpu_row_squares(dk_device *device, const dk_norm_rope_args *args, float *squares)
{
    dk_xpu *xpu = dk_xpu_of(device);
    dk_xpu_args a = {0};
    operand(xpu, &a, squares);
    operand(xpu, &a, args->data);
    dk_xpu_arg_i32(&a, args->heads * args->head_dim);
    dk_xpu_arg_i32(&a, (int32_t)args->rows);
    dk_xpu_arg_i64(&a, args->stride);
    dk_xpu_launch_rows(xpu,
                       args->type == DK_BF16 ? DK_XPU_ROW_SQUARES_BF16 : DK_XPU_ROW_SQUARES_F32,
                       &a, args->rows);
}

void dk_xpu_merge(dk_device *device, const dk_attention_merge_args *args)
{
    dk_xpu *xpu = dk_xpu_of(device);
    dk_xpu_args a = {0};
    operand(xpu, &a, args->sum);
    operand(xpu, &a, args->sum_lse);
    operand(xpu, &a, args->part);
    operand(xpu, &a, args->part_lse);
    dk_xpu_arg_i32(&a, args->heads);
    dk_xpu_arg_i32(&a, args->head_dim);
    dk_xpu_arg_i32(&a, (int32_t)args->rows);
    dk_xpu_arg_i32(&a, args->first);
    dk_xpu_launch_rows(xpu, args->type == DK_BF16 ? DK_XPU_MERGE_BF16 : DK_XPU_MERGE_F32, &a,
                       args->rows);
}

/* The rows of a vocabulary's table that are wanted are converted here and sent; the table, of
   gigabytes, stays on the host. */
void dk_xpu_embedding(dk_device *device, const dk_embedding_args *args)
{
    dk_xpu *xpu = dk_xpu_of(device);
    size_t row_bytes = (size_t)args->cols * dk_dtype_bytes(args->table_type);
    size_t bytes = (size_t)(args->rows * args->cols) * sizeof(float);
    void *rows, *dst = dk_xpu_operand(xpu, args->dst);
    dk_error err;
    dk_status status = dk_try_alloc(&rows, bytes, "embeddings", &err);
    if (status != DK_OK) {
        dk_xpu_fail(xpu, status, "%s", err.message);
        return;
    }
    for (int64_t row = 0; row < args->rows; row++) {
        dk_convert_to_f32((float *)rows + row * args->cols,
                          (const char *)args->table + (size_t)args->ids[row] * row_bytes,
                          args->table_type, args->cols);
    }
    if (dst != NULL) {
        dk_xpu_write(xpu, dst, rows, bytes);
    }
    dk_free(rows);
}
