/* Memory: the only file of the library that calls malloc and free. */
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

void *dk_alloc(size_t bytes)
{
    void *memory = calloc(1, bytes > 0 ? bytes : 1);
    if (memory == NULL) {
        abort(); /* the documented contract: small host objects have no error path */
    }
    return memory;
}

void *dk_realloc(void *memory, size_t bytes)
{
    void *grown = realloc(memory, bytes > 0 ? bytes : 1);
    if (grown == NULL) {
        abort();
    }
    return grown;
}

char *dk_strndup(const char *text, size_t bytes)
{
    char *copy = dk_alloc(bytes + 1);
    memcpy(copy, text, bytes);
    return copy;
}

char *dk_strdup(const char *text)
{
    return dk_strndup(text, strlen(text));
}

void dk_free(void *memory)
{
    free(memory);
}

dk_status dk_try_alloc(void **out, size_t bytes, const char *what, dk_error *err)
{
    size_t rounded;
    if (!dk_add_size(&rounded, bytes > 0 ? bytes : 1, DK_ALIGNMENT - 1)) {
        return dk_fail(err, DK_MEMORY, "%s: %zu bytes cannot be addressed", what, bytes);
    }
    void *memory = aligned_alloc(DK_ALIGNMENT, rounded / DK_ALIGNMENT * DK_ALIGNMENT);
    if (memory == NULL) {
        return dk_fail(err, DK_MEMORY, "%s: %zu bytes are not available", what, bytes);
    }
    *out = memory;
    return DK_OK;
}

dk_status dk_try_reserve(void **memory, size_t *room, size_t bytes, const char *what,
                         dk_error *err)
{
    if (bytes <= *room) {
        return DK_OK;
    }
    dk_free(*memory);
    *memory = NULL;
    *room = 0;
    DK_TRY(dk_try_alloc(memory, bytes, what, err));
    *room = bytes;
    return DK_OK;
}
