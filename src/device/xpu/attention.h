/* Ways to compute attention on the XPU, and which one a shape gets. */
#ifndef DK_DEVICE_XPU_ATTENTION_H
#define DK_DEVICE_XPU_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "device/xpu/primitives.h"
#include "kernels/attention.h"

typedef enum dk_xpu_attention_path {
    DK_XPU_MULTIPLY,  /* oneDNN's products, scores in memory a block of queries at a time */
    DK_XPU_FLASH,     /* our kernel (cl/flash.cl) */
    DK_XPU_FLASH_XMX, /* the same with matrix instructions, bf16 only (cl/flash_xmx.cl) */
    DK_XPU_SDPA,      /* one partition of oneDNN Graph */
    DK_XPU_SAGE, /* as multiply, queries and keys in whole numbers: other numbers, so only when
                    it is asked for */
    DK_XPU_PATH_COUNT
} dk_xpu_attention_path;

extern const char *const dk_xpu_path_names[DK_XPU_PATH_COUNT];

/* What was decided for calls of one shape. */
typedef struct dk_xpu_attention_choice {
    uint64_t hash;
    dk_xpu_attention_path path;
    bool stored; /* read from the file and not used so far */
} dk_xpu_attention_choice;

/* A partition of oneDNN Graph for one shape; `compiled` is NULL where oneDNN has none. */
typedef struct dk_xpu_sdpa dk_xpu_sdpa;

typedef struct dk_xpu_attention_state {
    dk_xpu_attention_choice *choices; /* [choice_count] */
    int choice_count;
    dk_xpu_sdpa **partitions; /* [partition_count] */
    int partition_count;
    bool whole_fails; /* oneDNN's products of whole numbers are missing, slow or wrong */
    int xmx_lanes; /* of a sub-group of matrix instructions; 0: there are none; -1: not known */
} dk_xpu_attention_state;

void dk_xpu_attention_init(dk_xpu *xpu);
void dk_xpu_attention_release(dk_xpu *xpu);

/* All that makes calls take the same time: sizes, strides, types, mask, bias, lse. */
dk_xpu_key dk_xpu_attention_key(const dk_attention_args *args);

/* Choices, of this process and, in the user's cache, of all (choices.c). The hash is of the
   shape, its lengths rounded up, the device, its driver and oneDNN. */
uint64_t dk_xpu_choice_hash(const dk_xpu *xpu, const dk_attention_args *args);
void dk_xpu_choices_read(dk_xpu *xpu);
dk_xpu_attention_choice *dk_xpu_choice_find(const dk_xpu *xpu, uint64_t hash);
/* lasts: for other processes too. Returns the way. */
dk_xpu_attention_path dk_xpu_choice_keep(dk_xpu *xpu, uint64_t hash, dk_xpu_attention_path way,
                                         bool lasts);

/* Queries and keys [len][heads * head_dim] as whole numbers, in scratch, and the scales of
   their rows, [heads][len]. */
typedef struct dk_xpu_whole {
    dk_dtype type; /* that holds the numbers: I8, BF16 or F32 */
    void *q, *k;
    float *q_scale, *k_scale;
    float *lost; /* [heads][q_len], for the log-sum-exp, see cl/sage.cl; or NULL */
} dk_xpu_whole;

/* type: of the operands as they are multiplied, F32 or BF16; of probabilities and values alone
   where whole is not NULL. */
void dk_xpu_attention_multiply(dk_xpu *xpu, const dk_attention_args *args, dk_dtype type,
                               const dk_xpu_whole *whole);
/* Whether oneDNN multiplies whole numbers for the scores of such a call, fast, and as a check
   of each shape found, rightly. */
bool dk_xpu_attention_multiplies_whole(dk_xpu *xpu, const dk_attention_args *args);

/* No bias, no mask. */
void dk_xpu_attention_sage(dk_xpu *xpu, const dk_attention_args *args, dk_dtype type);

/* Serves every call. */
void dk_xpu_attention_flash(dk_xpu *xpu, const dk_attention_args *args);
/* Whether the call can be one of matrix instructions, of this device. */
bool dk_xpu_attention_has_xmx(dk_xpu *xpu, const dk_attention_args *args);
void dk_xpu_attention_flash_xmx(dk_xpu *xpu, const dk_attention_args *args);

/* Whether the call can be one partition. Compiles it, which takes a while, unless that was
   done. why: what to say if not. */
bool dk_xpu_attention_has_sdpa(dk_xpu *xpu, const dk_attention_args *args, const char **why);
void dk_xpu_attention_sdpa(dk_xpu *xpu, const dk_attention_args *args);
void dk_xpu_attention_sdpa_release(dk_xpu *xpu);

#endif
