/* Attention: which way a call is computed. Where the backend is auto, the first dry run of a
   shape measures the ways that can compute it, and later calls take the fastest. */
#include "device/xpu/attention.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "device/xpu/xpu.h"

const char *const dk_xpu_path_names[DK_XPU_PATH_COUNT] = {
    [DK_XPU_MULTIPLY] = "multiply", [DK_XPU_FLASH] = "flash", [DK_XPU_FLASH_XMX] = "flash-xmx",
    [DK_XPU_SDPA] = "sdpa",         [DK_XPU_SAGE] = "sage",
};

enum { TIMED_RUNS = 3 };
/* A measurement is of so many queries that it does not take more operations than this: seconds
   at the rate of a CPU, instants at that of a GPU. */
static const double most_flops_cpu = 4e9, most_flops_gpu = 4e11;
/* The ways in their order have to be faster by this much than the ones before: a decision
   should not hang on noise, since each way rounds in its own manner. */
static const double worth_it = 0.9;

void dk_xpu_attention_init(dk_xpu *xpu)
{
    xpu->attention.xmx_lanes = -1;
    snprintf(xpu->head.attention_reason, sizeof xpu->head.attention_reason, "%s",
             dk_attention_backend_name(xpu->head.attention));
    if (xpu->head.attention == DK_ATTENTION_AUTO) {
        dk_xpu_choices_read(xpu);
    }
}

void dk_xpu_attention_release(dk_xpu *xpu)
{
    dk_xpu_attention_sdpa_release(xpu);
    dk_free(xpu->attention.choices);
    xpu->attention = (dk_xpu_attention_state){0};
}

dk_xpu_key dk_xpu_attention_key(const dk_attention_args *a)
{
    return (dk_xpu_key){{a->heads, a->head_dim, a->q_len, a->kv_len, (int64_t)a->type,
                         a->q_stride, a->k_stride, a->v_stride, a->dst_stride, a->causal,
                         a->bias != NULL, a->bias != NULL ? a->bias_head : 0,
                         a->bias != NULL ? a->bias_q : 0, a->bias != NULL ? a->bias_k : 0,
                         a->lse != NULL}};
}

/* Adds to the text that tells the user what was decided; what has no room is left out. */
static void tell(dk_xpu *xpu, const char *format, ...) DK_PRINTF(2, 3);
static void tell(dk_xpu *xpu, const char *format, ...)
{
    char *text = xpu->head.attention_reason;
    size_t size = sizeof xpu->head.attention_reason, used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, size - used, format, args);
    va_end(args);
}

static void run(dk_xpu *xpu, dk_xpu_attention_path path, const dk_attention_args *args)
{
    bool exact = xpu->head.attention == DK_ATTENTION_REFERENCE || args->type != DK_BF16;
    switch (path) {
    case DK_XPU_FLASH:
        dk_xpu_attention_flash(xpu, args);
        break;
    case DK_XPU_FLASH_XMX:
        dk_xpu_attention_flash_xmx(xpu, args);
        break;
    case DK_XPU_SDPA:
        dk_xpu_attention_sdpa(xpu, args);
        break;
    case DK_XPU_SAGE:
        dk_xpu_attention_sage(xpu, args, exact ? DK_F32 : dk_xpu_compute_type(xpu));
        break;
    default:
        dk_xpu_attention_multiply(xpu, args, exact ? DK_F32 : dk_xpu_compute_type(xpu), NULL);
    }
    dk_xpu_scratch_end(xpu);
}

/* Memory that stands for a call's operands while it is measured. */
typedef struct trial {
    dk_attention_args args;
    void *memory;
} trial;

/* Elements that a bias takes, and where its first lies. */
static int64_t bias_span(const dk_attention_args *a, int64_t *start)
{
    const int64_t lengths[] = {a->heads, a->q_len, a->kv_len};
    const int64_t strides[] = {a->bias_head, a->bias_q, a->bias_k};
    int64_t low = 0, high = 0;
    for (int i = 0; i < 3; i++) {
        int64_t reach = (lengths[i] - 1) * strides[i];
        low += reach < 0 ? reach : 0;
        high += reach > 0 ? reach : 0;
    }
    *start = -low;
    return high - low + 1;
}

static size_t bytes_of(int64_t count, size_t width)
{
    return ((size_t)count * width + DK_ALIGNMENT - 1) / DK_ALIGNMENT * DK_ALIGNMENT;
}

/* Zeros for every operand: no way takes longer or shorter for other numbers. */
static bool prepare(trial *t, dk_xpu *xpu, const dk_attention_args *args)
{
    dk_attention_args *a = &t->args;
    size_t width = dk_dtype_bytes(args->type);
    double most = DPCTLDevice_IsGPU(xpu->device) ? most_flops_gpu : most_flops_cpu;
    double row = 4.0 * args->heads * args->head_dim * (double)args->kv_len;
    int64_t start = 0, rows = (int64_t)(most / row) / 64 * 64;
    *t = (trial){.args = *args};
    a->q_len = rows < 64 ? 64 : rows;
    a->q_len = args->q_len < a->q_len || args->causal ? args->q_len : a->q_len;
    size_t q = bytes_of(a->q_len * a->q_stride, width),
           k = bytes_of(a->kv_len * a->k_stride, width);
    size_t v = bytes_of(a->kv_len * a->v_stride, width);
    size_t dst = bytes_of(a->q_len * a->dst_stride, width);
    size_t bias = a->bias != NULL ? bytes_of(bias_span(a, &start), sizeof(float)) : 0;
    size_t lse = a->lse != NULL ? bytes_of(a->heads * a->q_len, sizeof(float)) : 0;
    dk_status status = dk_xpu_alloc(xpu, &t->memory, q + k + v + dst + bias + lse,
                                    "measuring attention", NULL);
    if (status != DK_OK) {
        return false;
    }
    char *at = t->memory;
    a->q = at;
    a->k = at + q;
    a->v = at + q + k;
    a->dst = at + q + k + v;
    a->bias = bias > 0 ? (float *)(void *)(at + q + k + v + dst) + start : NULL;
    a->lse = lse > 0 ? (float *)(void *)(at + q + k + v + dst + bias) : NULL;
    dk_xpu_zero(xpu, t->memory, q + k + v + dst + bias + lse);
    return true;
}

/* Milliseconds of the best of a few runs; negative: it cannot be run. A way that is hopeless is
   not run again. */
static double measure(dk_xpu *xpu, dk_xpu_attention_path path, const dk_attention_args *args,
                      double best)
{
    double least = -1;
    dk_error err;
    xpu->head.dry = true; /* finds its scratch, and builds what it needs */
    run(xpu, path, args);
    xpu->head.dry = false;
    run(xpu, path, args);
    for (int i = 0; i < TIMED_RUNS && dk_device_sync(&xpu->head, &err) == DK_OK; i++) {
        double start = dk_now_ms();
        run(xpu, path, args);
        if (dk_device_sync(&xpu->head, &err) != DK_OK) {
            return -1;
        }
        double taken = dk_now_ms() - start;
        least = least < 0 || taken < least ? taken : least;
        if (best >= 0 && least > 3 * best) {
            break;
        }
    }
    return least;
}

/* For a plan nothing is compiled: sdpa gets the bound of what takes most memory. */
static dk_xpu_attention_path planned(dk_xpu_attention_path path)
{
    return path == DK_XPU_SDPA        ? DK_XPU_MULTIPLY
           : path == DK_XPU_FLASH_XMX ? DK_XPU_FLASH
                                      : path;
}

static bool can(dk_xpu *xpu, dk_xpu_attention_path path, const dk_attention_args *args,
                const char **why)
{
    *why = "this device has no matrix instructions for it";
    return path == DK_XPU_SDPA        ? dk_xpu_attention_has_sdpa(xpu, args, why)
           : path == DK_XPU_FLASH_XMX ? dk_xpu_attention_has_xmx(xpu, args)
                                      : true;
}

static void tell_shape(dk_xpu *xpu, const dk_attention_args *a, int64_t measured)
{
    tell(xpu, "; %d x %d, %lld queries, %lld keys, %s%s%s:", a->heads, a->head_dim,
         (long long)a->q_len, (long long)a->kv_len, a->type == DK_BF16 ? "bf16" : "f32",
         a->bias != NULL ? ", bias" : "", a->causal ? ", causal" : "");
    if (measured != a->q_len) {
        tell(xpu, " (of %lld queries)", (long long)measured);
    }
}

static dk_xpu_attention_path fastest(dk_xpu *xpu, const dk_attention_args *args)
{
    trial t;
    dk_xpu_attention_path best = DK_XPU_MULTIPLY;
    double best_ms = -1;
    bool dry = xpu->head.dry;
    if (!prepare(&t, xpu, args)) {
        tell_shape(xpu, args, args->q_len);
        tell(xpu, " no memory to measure: multiply");
        return best;
    }
    xpu->head.dry = false;
    tell_shape(xpu, args, t.args.q_len);
    for (int path = 0; path < DK_XPU_SAGE; path++) {
        const char *why;
        /* On a CPU oneDNN Graph computes before it returns: the queue behind it runs dry. */
        bool waits = path == DK_XPU_SDPA && !DPCTLDevice_IsGPU(xpu->device);
        if (waits || !can(xpu, (dk_xpu_attention_path)path, &t.args, &why)) {
            continue;
        }
        double taken = measure(xpu, (dk_xpu_attention_path)path, &t.args, best_ms);
        if (taken < 0) {
            tell(xpu, " %s fails,", dk_xpu_path_names[path]);
            continue;
        }
        tell(xpu, " %s %.1f ms,", dk_xpu_path_names[path], taken);
        if (best_ms < 0 || taken < worth_it * best_ms) {
            best = (dk_xpu_attention_path)path;
            best_ms = taken;
        }
    }
    xpu->head.dry = dry;
    dk_xpu_free(xpu, t.memory);
    tell(xpu, " so %s", dk_xpu_path_names[best]);
    return best;
}

/* What a named backend stands for. */
static dk_xpu_attention_path obey(dk_xpu *xpu, const dk_attention_args *args)
{
    const char *why;
    bool sage = xpu->head.attention == DK_ATTENTION_SAGE;
    if (sage && args->bias == NULL && !args->causal) {
        return DK_XPU_SAGE;
    }
    if (xpu->head.attention == DK_ATTENTION_REFERENCE) {
        return DK_XPU_MULTIPLY;
    }
    if (xpu->head.plans_only) {
        return planned(xpu->head.attention == DK_ATTENTION_SDPA ? DK_XPU_SDPA : DK_XPU_FLASH);
    }
    if (sage) {
        tell_shape(xpu, args, args->q_len);
        tell(xpu, " flash, since sage knows no bias and no mask");
    }
    if (xpu->head.attention == DK_ATTENTION_SDPA) {
        if (can(xpu, DK_XPU_SDPA, args, &why)) {
            return DK_XPU_SDPA;
        }
        tell_shape(xpu, args, args->q_len);
        tell(xpu, " flash, since sdpa cannot: %s", why);
    }
    return can(xpu, DK_XPU_FLASH_XMX, args, &why) ? DK_XPU_FLASH_XMX : DK_XPU_FLASH;
}

/* What another process measured, where it can still be done. */
static dk_xpu_attention_path take_stored(dk_xpu *xpu, dk_xpu_attention_choice *choice,
                                         const dk_attention_args *args)
{
    const char *why;
    if (xpu->head.plans_only) {
        return planned(choice->path);
    }
    choice->stored = false;
    choice->path = can(xpu, choice->path, args, &why) ? choice->path : DK_XPU_MULTIPLY;
    tell_shape(xpu, args, args->q_len);
    tell(xpu, " %s, as was measured before", dk_xpu_path_names[choice->path]);
    return choice->path;
}

static dk_xpu_attention_path choose(dk_xpu *xpu, const dk_attention_args *args)
{
    bool automatic = xpu->head.attention == DK_ATTENTION_AUTO;
    if (xpu->head.careful) {
        return DK_XPU_MULTIPLY;
    }
    uint64_t hash = dk_xpu_choice_hash(xpu, args);
    dk_xpu_attention_choice *found = dk_xpu_choice_find(xpu, hash);
    if (found != NULL) {
        return found->stored ? take_stored(xpu, found, args) : found->path;
    }
    if (!automatic) {
        return dk_xpu_choice_keep(xpu, hash, obey(xpu, args), false);
    }
    if (!xpu->head.dry || xpu->head.plans_only) { /* measuring is for dry runs */
        return DK_XPU_MULTIPLY;
    }
    return dk_xpu_choice_keep(xpu, hash, fastest(xpu, args), true);
}

void dk_xpu_attention(dk_device *device, const dk_attention_args *args)
{
    dk_xpu *xpu = dk_xpu_of(device);
    dk_xpu_attention_path path = choose(xpu, args);
    if (xpu->head.failed == DK_OK) {
        run(xpu, path, args);
    }
}
