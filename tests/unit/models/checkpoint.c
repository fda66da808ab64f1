/* Lists of tensors as sparse files. */
#include "checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "scratch.h"
#include "test.h"

void checkpoint_add(checkpoint *c, const char *name, dk_dtype dtype, int rank,
                    const int64_t *shape)
{
    c->entries = dk_realloc(c->entries, ((size_t)c->count + 1) * sizeof *c->entries);
    c->entries[c->count++] = (dk_safetensors_entry){
        .name = dk_strdup(name), .tensor = dk_tensor_view(NULL, dtype, rank, shape)};
}

static int parse_shape(const char *text, int64_t shape[DK_MAX_RANK])
{
    int rank = 0;
    while (*text != '\0' && *text != ']') {
        char *end;
        shape[rank++] = strtoll(text, &end, 10);
        text = *end == ',' ? end + 1 : end;
    }
    return rank;
}

/* Adds name with the first {a..b} written out, and the rest of them in turn. */
static void add_range(checkpoint *c, const char *name, int rank, const int64_t *shape)
{
    const char *open = strchr(name, '{'), *close = strchr(name, '}');
    int first, last;
    if (open == NULL) {
        checkpoint_add(c, name, DK_F32, rank, shape);
        return;
    }
    assert_int_equal(sscanf(open, "{%d..%d}", &first, &last), 2);
    for (int i = first; i <= last; i++) {
        char written[256];
        snprintf(written, sizeof written, "%.*s%d%s", (int)(open - name), name, i, close + 1);
        add_range(c, written, rank, shape);
    }
}

void checkpoint_read(checkpoint *out, const char *path)
{
    dk_error err;
    char *text, *rest = NULL;
    size_t size;
    *out = (checkpoint){0};
    assert_ok(dk_file_read(&text, &size, path, 1 << 20, &err), err);
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        int64_t shape[DK_MAX_RANK];
        char *space = strchr(line, ' ');
        if (line[0] != '#') {
            assert_non_null(space);
            *space = '\0';
            add_range(out, line, parse_shape(space + 2, shape), shape);
        }
    }
    dk_free(text);
}

void checkpoint_copy(checkpoint *out, const dk_weights *weights)
{
    *out = (checkpoint){0};
    for (int i = 0; i < dk_weights_count(weights); i++) {
        const dk_weight *weight = dk_weights_at(weights, i);
        checkpoint_add(out, weight->name, weight->tensor.dtype, weight->tensor.rank,
                       weight->tensor.shape);
    }
}

void checkpoint_release(checkpoint *c)
{
    for (int i = 0; i < c->count; i++) {
        dk_free((char *)c->entries[i].name);
    }
    dk_free(c->entries);
    *c = (checkpoint){0};
}

dk_tensor *checkpoint_find(checkpoint *c, const char *name)
{
    for (int i = 0; i < c->count; i++) {
        if (strcmp(c->entries[i].name, name) == 0) {
            return &c->entries[i].tensor;
        }
    }
    return NULL;
}

void checkpoint_drop(checkpoint *c, const char *name)
{
    for (int i = 0; i < c->count; i++) {
        if (strcmp(c->entries[i].name, name) == 0) {
            dk_free((char *)c->entries[i].name);
            c->entries[i] = c->entries[--c->count];
            return;
        }
    }
    fail_msg("%s is not in the list", name);
}

size_t checkpoint_bytes(const checkpoint *c)
{
    size_t bytes = 0;
    for (int i = 0; i < c->count; i++) {
        bytes += dk_tensor_bytes(&c->entries[i].tensor);
    }
    return bytes;
}

dk_weights *checkpoint_open(const checkpoint *c, const char *folder)
{
    dk_error err;
    dk_weights *weights;
    char *header, *path = scratch_path(folder, "model.safetensors");
    size_t size;
    assert_ok(dk_safetensors_header(&header, &size, c->entries, c->count, NULL, &err), err);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(header, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    bool fits = truncate(path, (off_t)(size + checkpoint_bytes(c))) == 0;
    if (fits) {
        assert_ok(dk_weights_open(&weights, folder, &err), err);
    }
    dk_free(header);
    dk_free(path);
    return fits ? weights : NULL;
}
