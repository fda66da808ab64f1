/* Gathering intermediate tensors. */
#include "pipeline/dump.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "weights/safetensors.h"

struct dk_dump {
    dk_safetensors_entry *entries; /* names and data owned */
    int count;
};

dk_dump *dk_dump_create(void)
{
    return dk_alloc(sizeof(dk_dump));
}

void dk_dump_destroy(dk_dump **dump)
{
    if (*dump != NULL) {
        for (int i = 0; i < (*dump)->count; i++) {
            dk_free((char *)(*dump)->entries[i].name);
            dk_free((*dump)->entries[i].tensor.data);
        }
        dk_free((*dump)->entries);
        dk_free(*dump);
        *dump = NULL;
    }
}

static dk_safetensors_entry *find(dk_dump *dump, const char *name)
{
    for (int i = 0; i < dump->count; i++) {
        if (strcmp(dump->entries[i].name, name) == 0) {
            return &dump->entries[i];
        }
    }
    size_t count = (size_t)dump->count + 1;
    dump->entries = dk_realloc(dump->entries, count * sizeof *dump->entries);
    dump->entries[dump->count] = (dk_safetensors_entry){.name = dk_strdup(name)};
    return &dump->entries[dump->count++];
}

void dk_dump_add(dk_dump *dump, const char *name, const dk_tensor *tensor)
{
    if (dump == NULL) {
        return;
    }
    dk_safetensors_entry *entry = find(dump, name);
    size_t bytes = dk_tensor_bytes(tensor), before = 0;
    if (entry->tensor.data != NULL) {
        before = dk_tensor_bytes(&entry->tensor);
        entry->tensor.shape[0] += tensor->shape[0];
    } else {
        entry->tensor = *tensor;
        entry->tensor.data = NULL;
    }
    entry->tensor.data = dk_realloc(entry->tensor.data, before + bytes);
    memcpy((char *)entry->tensor.data + before, tensor->data, bytes);
}

void dk_dump_add_indexed(dk_dump *dump, const char *name, int index, const dk_tensor *tensor)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%d", name, index);
    dk_dump_add(dump, full, tensor);
}

dk_status dk_dump_write(const dk_dump *dump, const char *path, dk_error *err)
{
    return dk_safetensors_write(path, dump->entries, dump->count, err);
}
