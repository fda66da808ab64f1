/* A safetensors file with its floats in another type, written tensor by tensor: memory stays at
   a few megabytes however large the file is. */
#ifndef DK_WEIGHTS_RECAST_H
#define DK_WEIGHTS_RECAST_H

#include <stdatomic.h>

#include "weights/safetensors.h"

typedef struct dk_recast_options {
    dk_dtype dtype; /* DK_F32, DK_BF16 or DK_F16 */
    /* A tensor with one of these between the dots of its name becomes F32 ("norm2" in
       "blocks.0.norm2.weight"). NULL-ended; NULL: none. */
    const char *const *keep_f32;
    /* Told how many bytes of the new file are there; may be NULL. */
    void (*progress)(void *context, uint64_t bytes);
    void *progress_context;
    const atomic_bool *cancel; /* may be NULL */
} dk_recast_options;

/* Bytes of all tensors after the conversion. */
uint64_t dk_recast_bytes(const dk_safetensors *from, const dk_recast_options *options);

/* Writes `to` (a new file; a failure may leave a part of it) from an open file; `where` names
   that one in messages. Order, names and __metadata__ stay; what is no float is copied. Rounds
   to nearest even; a finite value that would become infinite is DK_INVALID and names its
   tensor. */
DK_MUST_USE dk_status dk_recast_file(const char *to, const dk_safetensors *from,
                                     const dk_recast_options *options, const char *where,
                                     dk_error *err);

#endif
