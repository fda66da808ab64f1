/* The CPU device's row-wise and element-wise operations, in tasks of some rows or elements. */
#include <assert.h>
#include <string.h>

#include "device/cpu/cpu_ops.h"
#include "tensor/convert.h"

enum {
    LEAST = 16 * 1024, /* elements of a task: below some 5 us the threads fight for the next */
    CHUNK = 64 * 1024, /* the same, where there are enough for all threads */
    TASKS_PER_THREAD = 4,
    SHORT = 64, /* elements; a shorter row costs as much */
};

static int task_count(int64_t items, int64_t per_task)
{
    return (int)((items + per_task - 1) / per_task);
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

typedef struct rows_job {
    dk_cpu_device *cpu;
    const void *args;
    int64_t rows, per_task;
} rows_job;

/* Rows of `cols` elements: large tasks where there are enough of them for all threads. */
static rows_job rows_of(dk_device *device, const void *args, int64_t rows, int64_t cols)
{
    rows_job job = {dk_cpu_device_of(device), args, rows, 0};
    int64_t cost = cols > SHORT ? cols : SHORT;
    job.per_task = rows / (TASKS_PER_THREAD * job.cpu->head.threads);
    if (job.per_task < LEAST / cost) {
        job.per_task = LEAST / cost;
    }
    job.per_task = min64(job.per_task, CHUNK / cost);
    job.per_task = job.per_task > 0 ? job.per_task : 1;
    return job;
}

static void run_rows(rows_job *job, dk_team_fn *task)
{
    dk_team_run(job->cpu->team, task_count(job->rows, job->per_task), task, job);
}

static void norm_task(void *context, int task, int thread)
{
    (void)thread;
    rows_job *job = context;
    int64_t row0 = task * job->per_task;
    job->cpu->norm.norm(job->args, row0, min64(row0 + job->per_task, job->rows));
}

void dk_cpu_norm(dk_device *device, const dk_norm_args *args)
{
    rows_job job = rows_of(device, args, args->rows, args->cols);
    run_rows(&job, norm_task);
}

static void norm_rope_task(void *context, int task, int thread)
{
    (void)thread;
    rows_job *job = context;
    int64_t row0 = task * job->per_task;
    job->cpu->norm.norm_rope(job->args, row0, min64(row0 + job->per_task, job->rows));
}

void dk_cpu_norm_rope(dk_device *device, const dk_norm_rope_args *args)
{
    rows_job job = rows_of(device, args, args->rows, (int64_t)args->heads * args->head_dim);
    run_rows(&job, norm_rope_task);
}

typedef struct squares_job {
    rows_job rows; /* first: the task is given both by one address */
    float *squares;
} squares_job;

static void squares_task(void *context, int task, int thread)
{
    (void)thread;
    const squares_job *job = context;
    int64_t row0 = task * job->rows.per_task;
    job->rows.cpu->norm.row_squares(job->rows.args, job->squares, row0,
                                    min64(row0 + job->rows.per_task, job->rows.rows));
}

void dk_cpu_row_squares(dk_device *device, const dk_norm_rope_args *args, float *squares)
{
    int64_t cols = (int64_t)args->heads * args->head_dim;
    squares_job job = {rows_of(device, args, args->rows, cols), squares};
    run_rows(&job.rows, squares_task);
}

static void merge_task(void *context, int task, int thread)
{
    (void)thread;
    const rows_job *job = context;
    int64_t row0 = task * job->per_task;
    dk_attention_merge_rows(job->args, row0, min64(row0 + job->per_task, job->rows));
}

void dk_cpu_merge(dk_device *device, const dk_attention_merge_args *args)
{
    rows_job job = rows_of(device, args, args->rows, (int64_t)args->heads * args->head_dim);
    run_rows(&job, merge_task);
}

typedef struct map_job {
    dk_cpu_device *cpu;
    char *dst;
    const char *src;
    dk_dtype dst_type, src_type;
    dk_activation activation;
    int64_t count;
} map_job;

static void map_task(void *context, int task, int thread)
{
    (void)thread;
    map_job *job = context;
    int64_t first = (int64_t)task * CHUNK;
    job->cpu->elementwise.map(job->dst + first * (int64_t)dk_dtype_bytes(job->dst_type),
                              job->dst_type,
                              job->src + first * (int64_t)dk_dtype_bytes(job->src_type),
                              job->src_type, job->activation, min64(CHUNK, job->count - first));
}

void dk_cpu_map(dk_device *device, void *dst, dk_dtype dst_type, const void *src,
                dk_dtype src_type, dk_activation activation, int64_t count)
{
    map_job job = {dk_cpu_device_of(device), dst, src, dst_type, src_type, activation, count};
    dk_team_run(job.cpu->team, task_count(count, CHUNK), map_task, &job);
}

typedef struct combine_job {
    dk_cpu_device *cpu;
    float *dst;
    const float *const *src;
    const float *coef;
    int terms;
    int64_t count;
} combine_job;

static void combine_task(void *context, int task, int thread)
{
    (void)thread;
    combine_job *job = context;
    int64_t first = (int64_t)task * CHUNK;
    const float *src[DK_COMBINE_MAX_TERMS];
    for (int i = 0; i < job->terms; i++) {
        src[i] = job->src[i] + first;
    }
    job->cpu->elementwise.combine(job->dst + first, src, job->coef, job->terms,
                                  min64(CHUNK, job->count - first));
}

void dk_cpu_combine(dk_device *device, float *dst, const float *const *src, const float *coef,
                    int terms, int64_t count)
{
    assert(terms >= 1 && terms <= DK_COMBINE_MAX_TERMS);
    combine_job job = {dk_cpu_device_of(device), dst, src, coef, terms, count};
    dk_team_run(job.cpu->team, task_count(count, CHUNK), combine_task, &job);
}

/* Copies one run of `count` elements with strides and a cast. */
static void copy_run(void *dst, dk_dtype dst_type, int64_t dst_stride, const void *src,
                     dk_dtype src_type, int64_t src_stride, int64_t count)
{
    if (dst_type == src_type && dst_stride == 1 && src_stride == 1) {
        memcpy(dst, src, (size_t)count * dk_dtype_bytes(dst_type));
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        float value = src_type == DK_F32
                          ? ((const float *)src)[i * src_stride]
                          : dk_f32_from_bf16(((const uint16_t *)src)[i * src_stride]);
        if (dst_type == DK_F32) {
            ((float *)dst)[i * dst_stride] = value;
        } else {
            ((uint16_t *)dst)[i * dst_stride] = dk_bf16_from_f32(value);
        }
    }
}

/* Rows are runs along the last axis, numbered in the order of the other axes. */
static void permute_task(void *context, int task, int thread)
{
    (void)thread;
    const rows_job *job = context;
    const dk_permute_args *args = job->args;
    int last = args->rank - 1;
    int64_t index[8], rest = task * job->per_task;
    int64_t runs = min64(job->per_task, job->rows - rest);
    for (int i = last - 1; i >= 0; i--) {
        index[i] = rest % args->shape[i];
        rest /= args->shape[i];
    }
    for (; runs > 0; runs--) {
        int64_t src = 0, dst = 0;
        for (int i = 0; i < last; i++) {
            src += index[i] * args->src_stride[i];
            dst += index[i] * args->dst_stride[i];
        }
        copy_run((char *)args->dst + dst * (int64_t)dk_dtype_bytes(args->dst_type),
                 args->dst_type, args->dst_stride[last],
                 (const char *)args->src + src * (int64_t)dk_dtype_bytes(args->src_type),
                 args->src_type, args->src_stride[last], args->shape[last]);
        for (int i = last - 1; i >= 0 && ++index[i] == args->shape[i]; i--) {
            index[i] = 0;
        }
    }
}

void dk_cpu_permute(dk_device *device, const dk_permute_args *args)
{
    assert(args->rank >= 2 && args->rank <= 8);
    int64_t runs = 1;
    for (int i = 0; i < args->rank - 1; i++) {
        runs *= args->shape[i];
    }
    rows_job job = rows_of(device, args, runs, args->shape[args->rank - 1]);
    run_rows(&job, permute_task);
}

void dk_cpu_embedding(dk_device *device, const dk_embedding_args *args)
{
    (void)device;
    size_t row_bytes = (size_t)args->cols * dk_dtype_bytes(args->table_type);
    for (int64_t row = 0; row < args->rows; row++) {
        dk_convert_to_f32(args->dst + row * args->cols,
                          (const char *)args->table + (size_t)args->ids[row] * row_bytes,
                          args->table_type, args->cols);
    }
}
