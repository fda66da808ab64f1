/* What a device offers: memory, and operations at the grain that deserves fusion. Models call
   it through nn/; none knows which device it runs on.

   Operations are enqueued in order and return nothing: a failure (no memory for scratch, a lost
   device) is kept and reported by dk_device_sync, and later operations do nothing.

   A dry run (dk_device_set_dry) performs no arithmetic and touches no operand: it adds up the
   floating-point operations and finds the scratch memory that the same calls will need, so that
   the step loop allocates nothing. */
#ifndef DK_DEVICE_DEVICE_H
#define DK_DEVICE_DEVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "device/device_ops.h"
#include "device/quantization.h"
#include "device/residency.h"
#include "kernels/attention.h"
#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/norm.h"

typedef struct dk_device dk_device;

/* What is opened, and how. */
typedef struct dk_device_options {
    const char *name;  /* "cpu" (or NULL); of modules: "xpu", "xpu:1", "xpu:cpu" */
    int threads;       /* cpu; 0: one per available core */
    const char *level; /* cpu: highest instruction set to use ("avx2"), NULL: what it has */
    const char *pin;   /* cpu: where threads may run, see dk_pin_from_name */
    bool exact;        /* f32 arithmetic throughout */
    dk_attention_backend attention;
    bool plans_only; /* dry runs beside another device: `threads` are counted with, but there
                        is one, and scratch is measured, not allocated */
    dk_residency_options residency;
    const dk_log *log;      /* borrowed, may be NULL */
    dk_trace *trace;        /* borrowed until the device is closed; NULL: none is written */
    const char *trace_lane; /* of its operations; NULL: DK_TRACE_COMPUTE; a static text */
} dk_device_options;

/* Kinds of operations, and what all calls of one kind have done so far. */
typedef enum dk_device_op {
    DK_OP_LINEAR,
    DK_OP_CONV,
    DK_OP_ATTENTION,
    DK_OP_NORM,
    DK_OP_NORM_ROPE,
    DK_OP_MERGE,
    DK_OP_MAP,
    DK_OP_COMBINE,
    DK_OP_PERMUTE,
    DK_OP_EMBEDDING,
    DK_OP_COUNT
} dk_device_op;
extern const char *const dk_device_op_names[DK_OP_COUNT];

typedef struct dk_device_work {
    int64_t calls;
    double flops;   /* dry or not */
    double seconds; /* in the calls: all the time on devices that finish before returning */
} dk_device_work;

/* What weights that come and go have cost so far. */
typedef struct dk_device_traffic {
    uint64_t copies; /* to the device */
    uint64_t late;   /* of them, only asked for when an operation needed them */
    double bytes;
    double seconds; /* that the copies took */
    double stalled; /* of that, seconds in which no operation ran */
} dk_device_traffic;

/* The common head of every device; each kind extends it. */
struct dk_device {
    const dk_device_ops *ops;
    void *module;          /* handle of the loaded module it came from; NULL: built in */
    char name[32];         /* as it was asked for: "cpu", "xpu:cpu" */
    char description[128]; /* "cpu, avx2, 2 threads" */
    const char *level;     /* of the CPU: "avx2"; of a module: what it computes on */
    int threads;           /* of the CPU: the team's, or those that a plan is for */
    bool exact;            /* f32 arithmetic throughout: --dtype f32 */
    bool host_memory;      /* its memory can be addressed by the host */
    int64_t direct_rows;   /* up to so many rows linear layers sum in another order; above it, a
                              row's result does not depend on the number of rows */
    dk_attention_backend attention; /* of all attentions */
    bool adds_parts;                /* attention takes dk_attention_args.sum */
    bool joins_frames; /* convolutions want frames in one piece: see dk_conv_args.room */
    bool waits; /* for measurements: every operation is waited for, seconds are its own */
    char attention_reason[1024]; /* how they are computed, and why */
    bool dry;
    bool plans_only; /* always dry, and no scratch is allocated: see dk_device_options */
    bool careful;    /* products by the device's slow and simple kernels: see nn/guard.h */
    dk_dtype passing_type; /* of weights that pass, where there is a window: as what they are
                              multiplied */
    int distrusted;        /* shapes whose products a check found wrong */
    double computed;       /* floating-point operations that were no dry run's */
    _Atomic size_t packed_bytes; /* of weights in the device's own layout, made so far; read by
                                    other threads */
    uint64_t enqueued;           /* of a module: what it gave to the driver so far */
    double waited_ms;       /* of a module: processor time of waits between its operations */
    _Atomic uint64_t pulse; /* operations so far, dry ones aside; read by other threads */
    dk_device_work work[DK_OP_COUNT];
    dk_device_traffic traffic;
    dk_trace *trace;        /* borrowed; NULL: none is written */
    const char *trace_lane; /* of its operations */
    const char *operation;  /* that is given now: its kind's name; NULL: none */
    dk_status failed;       /* first failure since the last sync */
    dk_error failure;
};

/* "auto" (or NULL), "flash" (or "fa3"), "sdpa", "sage", "reference". exact: --dtype f32, which
   refuses sage, and whose auto is the reference. */
DK_MUST_USE dk_status dk_attention_backend_from_name(dk_attention_backend *out,
                                                     const char *name, bool exact,
                                                     dk_error *err);

const char *dk_attention_backend_name(dk_attention_backend backend);
/* How attentions are computed and why, so far: "flash (auto: …)". Borrowed, until the device's
   next operation. */
const char *dk_device_attention_reason(const dk_device *device);

/* DK_INVALID says which names are accepted; whether there is such a device is not looked at. */
DK_MUST_USE dk_status dk_device_check_name(const char *name, dk_error *err);
/* Opens what options->name says; modules are loaded (device/module.h). Owned. */
DK_MUST_USE dk_status dk_device_open(dk_device **out, const dk_device_options *options,
                                     dk_error *err);
void dk_device_close(dk_device **device);
/* Scratch of all operations so far; the second begins anew, of a device that plans only. */
size_t dk_device_scratch_bytes(const dk_device *device);
void dk_device_forget_scratch(dk_device *device);

/* Host memory that operations will name as weights until it is disowned, by the address that it
   was adopted with. */
void dk_device_adopt(dk_device *device, const dk_adoption *adoption);
void dk_device_disown(dk_device *device, const void *host);

/* The stages that use a component are over for now: what OFFLOAD_COMPONENT brought in is given
   up. */
void dk_device_rest(dk_device *device, dk_component component);

/* Floating-point operations of all calls so far. */
double dk_device_flops(const dk_device *device);
/* Grows with every operation that computes; from any thread. */
uint64_t dk_device_pulse(const dk_device *device);
void dk_device_set_dry(dk_device *device, bool dry);
/* Waits for everything enqueued; returns and clears the first failure. */
DK_MUST_USE dk_status dk_device_sync(dk_device *device, dk_error *err);

/* Owned device memory, freed with dk_device_free; NULL is fine there. */
DK_MUST_USE dk_status dk_device_alloc(dk_device *device, void **out, size_t bytes,
                                      const char *what, dk_error *err);
void dk_device_free(dk_device *device, void *memory);

/* Copies between the caller's memory and the device's, done on return; none in a dry run. */
void dk_device_write(dk_device *device, void *dst, const void *host, size_t bytes);
void dk_device_zero(dk_device *device, void *dst, size_t bytes);
void dk_device_read(dk_device *device, void *host, const void *src, size_t bytes);

/* A convolution weight [out][in][kt][kh][kw] in the layout that dk_device_conv takes; owned
   device memory. shape: those five numbers. */
DK_MUST_USE dk_status dk_device_conv_prepare(dk_device *device, void **packed,
                                             const void *weight, dk_dtype weight_type,
                                             const int shape[5], dk_error *err);

/* A linear layer's weight [cols][depth] (any float type) in fewer bits, as dk_device_linear
   takes it in the stored weight's place; owned, freed as device memory is. DK_UNSUPPORTED where
   the device has no such form of it: the CPU of other kinds than INT8, INT8 above
   DK_GEMM_INT8_DEPTH. */
DK_MUST_USE dk_status dk_device_linear_quantize(dk_device *device, dk_linear_quantized **out,
                                                const void *weight, dk_dtype weight_type,
                                                int64_t cols, int64_t depth,
                                                dk_quantization kind, dk_error *err);
/* Of weights that were adopted as passing, those that are there from now on; 0 bytes: none,
   after all copies of those before. Operations name no others. */
void dk_device_window(dk_device *device, const void *host, size_t bytes);
/* An adopted weight is not going to be read soon: what was made of it is given up. */
void dk_device_forget(dk_device *device, const void *host);

void dk_device_linear(dk_device *device, const dk_linear_args *args);
/* `count` layers of the same src (rows, stride, type and depth too), one after the other: what
   is done to src is done once. A layer may read what an earlier one wrote, but not as src. */
void dk_device_linear_group(dk_device *device, const dk_linear_args *args, int count);
void dk_device_conv(dk_device *device, const dk_conv_args *args);
void dk_device_attention(dk_device *device, const dk_attention_args *args);
void dk_device_norm(dk_device *device, const dk_norm_args *args);
void dk_device_norm_rope(dk_device *device, const dk_norm_rope_args *args);
/* squares[rows] = sums of the squares of the heads that are here; see dk_norm_rope_args. */
void dk_device_row_squares(dk_device *device, const dk_norm_rope_args *args, float *squares);
void dk_device_merge(dk_device *device, const dk_attention_merge_args *args);
void dk_device_map(dk_device *device, void *dst, dk_dtype dst_type, const void *src,
                   dk_dtype src_type, dk_activation activation, int64_t count);
void dk_device_combine(dk_device *device, float *dst, const float *const *src,
                       const float *coef, int terms, int64_t count);
void dk_device_permute(dk_device *device, const dk_permute_args *args);
void dk_device_embedding(dk_device *device, const dk_embedding_args *args);
/* *flag (device memory) = the larger of itself and the bits of the largest magnitude of src;
   those of NaN are the largest of all. Only where ops->absmax is not NULL. */
void dk_device_absmax(dk_device *device, uint32_t *flag, const void *src, dk_dtype type,
                      int64_t count);

#endif
