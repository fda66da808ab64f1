/* Element types, as named in safetensors files. */
#ifndef DK_TENSOR_DTYPE_H
#define DK_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

/* enum name, safetensors name, bytes, is a float */
#define DK_DTYPE_MAP(X)                                                                        \
    X(F32, "F32", 4, true)                                                                     \
    X(BF16, "BF16", 2, true)                                                                   \
    X(F16, "F16", 2, true)                                                                     \
    X(F64, "F64", 8, true)                                                                     \
    X(F8_E4M3, "F8_E4M3", 1, true)                                                             \
    X(F8_E5M2, "F8_E5M2", 1, true)                                                             \
    X(I8, "I8", 1, false)                                                                      \
    X(U8, "U8", 1, false)                                                                      \
    X(I16, "I16", 2, false)                                                                    \
    X(U16, "U16", 2, false)                                                                    \
    X(I32, "I32", 4, false)                                                                    \
    X(U32, "U32", 4, false)                                                                    \
    X(I64, "I64", 8, false)                                                                    \
    X(U64, "U64", 8, false)                                                                    \
    X(BOOL, "BOOL", 1, false)

typedef enum dk_dtype {
#define DK_DTYPE_ENUM(name, text, bytes, is_float) DK_##name,
    DK_DTYPE_MAP(DK_DTYPE_ENUM)
#undef DK_DTYPE_ENUM
        DK_DTYPE_COUNT
} dk_dtype;

size_t dk_dtype_bytes(dk_dtype dtype);
bool dk_dtype_is_float(dk_dtype dtype);
const char *dk_dtype_name(dk_dtype dtype); /* the safetensors name */
bool dk_dtype_from_name(dk_dtype *out, const char *name);

#endif
