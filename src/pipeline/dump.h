/* Intermediate tensors for --dump-tensors: gathered by name, outputs one behind the other along
   the first axis, written as one safetensors file. */
#ifndef DK_PIPELINE_DUMP_H
#define DK_PIPELINE_DUMP_H

#include <stdint.h>

#include "base/error.h"
#include "tensor/tensor.h"

typedef struct dk_dump dk_dump;

dk_dump *dk_dump_create(void);
void dk_dump_destroy(dk_dump **dump);

/* Copies an F32 tensor; the same name again appends along the first axis. dump may be NULL. */
void dk_dump_add(dk_dump *dump, const char *name, const dk_tensor *tensor);
/* name.index */
void dk_dump_add_indexed(dk_dump *dump, const char *name, int index, const dk_tensor *tensor);

DK_MUST_USE dk_status dk_dump_write(const dk_dump *dump, const char *path, dk_error *err);

#endif
