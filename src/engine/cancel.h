/* The inside of dk_cancel, for the parts of the library that poll it. */
#ifndef DK_ENGINE_CANCEL_H
#define DK_ENGINE_CANCEL_H

#include <stdatomic.h>

#include "darkroom/darkroom.h"

struct dk_cancel {
    atomic_bool requested;
};

static inline const atomic_bool *dk_cancel_flag(const dk_cancel *cancel)
{
    return &cancel->requested;
}

#endif
