/* Memory. Small host objects come from dk_alloc, which ends the process when there is no
   memory left, so that strings and lists need no error paths. Tensors and buffers whose size a
   user or a file decides come from dk_try_alloc, which may fail. Both are freed with dk_free.
 */
#ifndef DK_BASE_ALLOC_H
#define DK_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { DK_ALIGNMENT = 64 }; /* bytes: one cache line, one AVX-512 register */

/* Zeroed memory; never NULL; owned. */
void *dk_alloc(size_t bytes);
void *dk_realloc(void *memory, size_t bytes); /* dies like dk_alloc; the tail is not zeroed */
char *dk_strdup(const char *text);
char *dk_strndup(const char *text, size_t bytes);
void dk_free(void *memory); /* NULL is fine */

/* Memory aligned to DK_ALIGNMENT, not zeroed; owned. `what` names it in the DK_MEMORY message.
 */
DK_MUST_USE dk_status dk_try_alloc(void **out, size_t bytes, const char *what, dk_error *err);
/* The same, kept from one use to the next: *memory has *room bytes and becomes larger, without
   what it held, where `bytes` are more. After a failure there is none. */
DK_MUST_USE dk_status dk_try_reserve(void **memory, size_t *room, size_t bytes,
                                     const char *what, dk_error *err);

/* *out = a * b (or a + b); false when the result does not fit. */
static inline bool dk_mul_size(size_t *out, size_t a, size_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool dk_add_size(size_t *out, size_t a, size_t b)
{
    return !__builtin_add_overflow(a, b, out);
}

#endif
