/* Safetensors files: an 8-byte header length, a JSON header, tensor data. Opened by mmap, data
   stays where it is. Format: github.com/huggingface/safetensors, "Format". */
#ifndef DK_WEIGHTS_SAFETENSORS_H
#define DK_WEIGHTS_SAFETENSORS_H

#include <jansson.h>

#include "base/error.h"
#include "tensor/tensor.h"

typedef struct dk_safetensors dk_safetensors;

typedef struct dk_weight {
    const char *name;
    dk_tensor tensor; /* data lies in the file's mapping: read-only */
} dk_weight;

/* Owned; tensors and names are borrowed until it is closed. */
DK_MUST_USE dk_status dk_safetensors_open(dk_safetensors **out, const char *path,
                                          dk_error *err);
/* The same for bytes in memory, borrowed; `where` names them in messages. */
DK_MUST_USE dk_status dk_safetensors_parse(dk_safetensors **out, const void *data, size_t size,
                                           const char *where, dk_error *err);
void dk_safetensors_close(dk_safetensors **file);

const dk_weight *dk_safetensors_find(const dk_safetensors *file,
                                     const char *name); /* or NULL */
int dk_safetensors_count(const dk_safetensors *file);
const dk_weight *dk_safetensors_at(const dk_safetensors *file, int index); /* in file order */
/* A value of the header's __metadata__, or NULL. */
const char *dk_safetensors_metadata(const dk_safetensors *file, const char *key);
/* All of them, an object of strings; borrowed; NULL when there are none. */
const json_t *dk_safetensors_all_metadata(const dk_safetensors *file);

/* Writes tensors in the order given; the file appears whole or not at all. */
typedef struct dk_safetensors_entry {
    const char *name;
    dk_tensor tensor;
} dk_safetensors_entry;
DK_MUST_USE dk_status dk_safetensors_write(const char *path,
                                           const dk_safetensors_entry *entries, int count,
                                           dk_error *err);

/* The header for such a file (with its length and padding), as `dk_safetensors_write` would
   write it; owned. Tensor data follows in order, without gaps. metadata: an object of strings
   for
   __metadata__, or NULL. */
DK_MUST_USE dk_status dk_safetensors_header(char **out, size_t *size,
                                            const dk_safetensors_entry *entries, int count,
                                            const json_t *metadata, dk_error *err);

#endif
