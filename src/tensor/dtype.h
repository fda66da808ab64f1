/* Element types, as named in safetensors files. */
#ifndef DK_TENSOR_DTYPE_H
#define DK_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

/* enum name, safetensors name, bits, is a float that dk_convert_to_f32 reads. The last ones are
   only listed, copied and never computed with. */
#define DK_DTYPE_MAP(X)                                                                        \
    X(F32, "F32", 32, true)                                                                    \
    X(BF16, "BF16", 16, true)                                                                  \
    X(F16, "F16", 16, true)                                                                    \
    X(F64, "F64", 64, true)                                                                    \
    X(F8_E4M3, "F8_E4M3", 8, true)                                                             \
    X(F8_E5M2, "F8_E5M2", 8, true)                                                             \
    X(I8, "I8", 8, false)                                                                      \
    X(U8, "U8", 8, false)                                                                      \
    X(I16, "I16", 16, false)                                                                   \
    X(U16, "U16", 16, false)                                                                   \
    X(I32, "I32", 32, false)                                                                   \
    X(U32, "U32", 32, false)                                                                   \
    X(I64, "I64", 64, false)                                                                   \
    X(U64, "U64", 64, false)                                                                   \
    X(BOOL, "BOOL", 8, false)                                                                  \
    X(F8_E8M0, "F8_E8M0", 8, false)                                                            \
    X(F8_E4M3FNUZ, "F8_E4M3FNUZ", 8, false)                                                    \
    X(F8_E5M2FNUZ, "F8_E5M2FNUZ", 8, false)                                                    \
    X(F6_E2M3, "F6_E2M3", 6, false)                                                            \
    X(F6_E3M2, "F6_E3M2", 6, false)                                                            \
    X(F4, "F4", 4, false)                                                                      \
    X(C64, "C64", 64, false)

typedef enum dk_dtype {
#define DK_DTYPE_ENUM(name, text, bits, is_float) DK_##name,
    DK_DTYPE_MAP(DK_DTYPE_ENUM)
#undef DK_DTYPE_ENUM
        DK_DTYPE_COUNT
} dk_dtype;

size_t dk_dtype_bits(dk_dtype dtype);
size_t dk_dtype_bytes(dk_dtype dtype); /* of one element; not for types below 8 bits */
bool dk_dtype_is_float(dk_dtype dtype);
const char *dk_dtype_name(dk_dtype dtype); /* the safetensors name */
const char *dk_dtype_names(void);          /* all of them, "F32, BF16, …" */
bool dk_dtype_from_name(dk_dtype *out, const char *name);

#endif
