/* kernelcheck: every kernel of the dispatch tables against its definition computed in double.
   The C reference and each instruction set's version meet the same bounds, so none is measured
   by another's errors. With --device the operations of a device are held to the same
   definitions. A case runs in several rounds that must agree bit for bit: operands lie
   before and behind an unmapped page in turn, unwritten memory holds another poison, and plans
   are made for other numbers of threads. */
#ifndef DK_TESTS_KERNELCHECK_H
#define DK_TESTS_KERNELCHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/attention.h"
#include "kernels/conv.h"
#include "kernels/linear.h"
#include "tensor/dtype.h"

#if defined(__SANITIZE_ADDRESS__)
#define KC_SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KC_SLOW 1
#endif
#endif
#ifndef KC_SLOW
#define KC_SLOW 0
#endif

#define KC_COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

typedef struct kc_block kc_block;
typedef struct dk_device dk_device;

/* The state of a run. */
typedef struct kc {
    unsigned flags, below; /* the level at work and the one under it */
    bool lowest;           /* level c: all is new */
    bool brief;            /* oracles look at one result in seven */
    uint64_t seed;
    const char *level, *function;
    int cases, failures; /* of the function at work */
    char where[192];     /* the case at work */
    int rounds, round;   /* the case's; oracles are compared in round 0 */
    uint64_t random;
    kc_block *blocks; /* memory of the round */
    void *first;      /* round 0's result */
    size_t first_bytes;
    dk_device *device;    /* NULL: the kernels themselves */
    bool exact;           /* the device computes in f32 */
    dk_dtype panels;      /* what it multiplies */
    struct kc_sent *sent; /* operands in its memory (kernelcheck_device.h) */
    int sent_count;
} kc;

typedef struct kc_test {
    const char *name; /* "linear.store" */
    bool (*is_new)(const kc *k);
    void (*check)(kc *k);
    bool of_devices; /* what a device does too; checked through it */
} kc_test;

typedef struct kc_family {
    const kc_test *tests;
    int count;
} kc_family;

extern const kc_family kc_decode, kc_gemm, kc_gemm_int8, kc_quantize, kc_linear, kc_attention,
    kc_merge, kc_conv, kc_norm, kc_elementwise, kc_memory;

/* --- cases -------------------------------------------------------------------------------- */

/* Names a case that runs in `rounds` rounds:  kc_case(…); while (kc_next_round(k)) { … }  */
void kc_case(kc *k, int rounds, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool kc_next_round(kc *k);
int kc_threads(const kc *k);     /* what the round's plan is made for: 1, 16, 2, 3 */
int kc_plan_rounds(const kc *k); /* as many rounds; brief: two */

/* The round's result: must have the bits of round 0's. */
void kc_result(kc *k, const void *data, size_t bytes);
/* Whether an oracle that is slow computes result `index`: always, unless the run is brief. */
bool kc_looks_at(const kc *k, int64_t index);
/* |got - want| <= allowed, or both are NaN or the same infinity. `index` is of dst. */
void kc_expect(kc *k, int64_t index, double got, double want, double allowed);
void kc_fail(kc *k, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Bytes [from, to) are what they were. */
void kc_untouched(kc *k, const void *now, const void *before, size_t from, size_t to);

/* --- memory: freed after the round, its borders checked ----------------------------------- */

/* Poisoned memory that ends (even rounds) or starts (odd rounds) at an unmapped page, so its
   address is a multiple of its elements' size only, or of a page. */
void *kc_alloc(kc *k, size_t bytes);
void *kc_copy(kc *k, const void *data, size_t bytes);

/* --- numbers ------------------------------------------------------------------------------ */

typedef enum kc_values {
    KC_ORDINARY, /* [-1, 1) */
    KC_HARD,     /* among them +0, -0, denormals and numbers up to 2^40 (f16: 2^10, f8: 16) */
    KC_WILD,     /* HARD with infinities and NaN */
} kc_values;

#define KC_U32   0x1p-24 /* unit roundoffs */
#define KC_UBF16 0x1p-8
#define KC_TINY  0x1p-126 /* denormals may be flushed */

int kc_below(kc *k, int bound); /* a whole number in [0, bound) */
double kc_uniform(kc *k);       /* [-1, 1) */
void *kc_operand(kc *k, dk_dtype type, int64_t count, kc_values values);
/* Whole numbers in [-127, 127], half of them the two ends where `extreme`. */
int8_t *kc_int8_operand(kc *k, int64_t count, bool extreme);
double kc_get(const void *base, dk_dtype type, int64_t index);
double kc_unit(dk_dtype type);                    /* the type's unit roundoff */
double kc_rounded(double value, dk_dtype type);   /* to F32 or BF16 */
double kc_activate(double x, dk_activation kind); /* the definition */
/* A bound of an activation's own error at x. */
double kc_activate_error(double x, dk_activation kind);
/* The operand as doubles, rounded to the type of the panels it is multiplied in. */
double *kc_plain(kc *k, const void *base, dk_dtype type, int64_t count, dk_dtype panels);
/* How rounding errors of a sum of n terms grow: with the root of n, since they are of either
   sign (Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis", 2019);
   their constant for a failure in a million entries is below 4. */
double kc_growth(int64_t n);

/* A result with the bound of its error. */
typedef struct kc_value {
    double y, error;
} kc_value;

/* Sends a sum through the epilogue of dk_linear_args at (m, n); dst_before: what dst held, for
   a residual in place. Includes the rounding to dst's type. */
kc_value kc_epilogue(const dk_linear_args *args, const void *dst_before, int64_t m, int64_t n,
                     kc_value sum);
kc_value kc_multiplied(kc_value v, double by);
kc_value kc_plus(kc_value v, double term);
kc_value kc_activated(kc_value v, dk_activation kind);

/* The matrix-multiply kernels that are new at the level; at level c also one of an unusual
   shape (grouped_gemm.h), since composed operations must assume nothing of a kernel's. */
enum { KC_MOST_GEMMS = 3 };
int kc_new_gemms(const kc *k, dk_gemm_kernel out[KC_MOST_GEMMS]);
/* The same for the kernels of whole numbers. */
enum { KC_MOST_INT8_GEMMS = 2 };
int kc_new_int8_gemms(const kc *k, dk_gemm_kernel out[KC_MOST_INT8_GEMMS]);

#endif
