/* Element types. */
#include "tensor/dtype.h"

#include <string.h>

typedef struct dtype_fact {
    const char *name;
    size_t bits;
    bool is_float;
} dtype_fact;

static const dtype_fact facts[DK_DTYPE_COUNT] = {
#define DK_DTYPE_FACT(name, text, bits, is_float) [DK_##name] = {text, bits, is_float},
    DK_DTYPE_MAP(DK_DTYPE_FACT)
#undef DK_DTYPE_FACT
};

size_t dk_dtype_bits(dk_dtype dtype)
{
    return facts[dtype].bits;
}

size_t dk_dtype_bytes(dk_dtype dtype)
{
    return facts[dtype].bits / 8;
}

bool dk_dtype_is_float(dk_dtype dtype)
{
    return facts[dtype].is_float;
}

const char *dk_dtype_name(dk_dtype dtype)
{
    return facts[dtype].name;
}

const char *dk_dtype_names(void)
{
#define DK_DTYPE_TEXT(name, text, bits, is_float) ", " text
    static const char names[] = DK_DTYPE_MAP(DK_DTYPE_TEXT);
#undef DK_DTYPE_TEXT
    return names + 2; /* behind the first ", " */
}

bool dk_dtype_from_name(dk_dtype *out, const char *name)
{
    for (int i = 0; i < DK_DTYPE_COUNT; i++) {
        if (strcmp(facts[i].name, name) == 0) {
            *out = (dk_dtype)i;
            return true;
        }
    }
    return false;
}
