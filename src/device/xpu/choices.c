/* What was measured stays known: the same shape on the same device, driver and library gets the
   same way in every process, so that a generation that is resumed or made again rounds alike.
   Lines of a file, "<hash> <way>"; what cannot be read or written is only measured again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/environment.h"
#include "base/file.h"
#include "device/xpu/attention.h"
#include "device/xpu/xpu.h"

enum { STEP = 64, LINE = 64 }; /* lengths that differ by less share a choice */

static uint64_t mix(uint64_t hash, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
    }
    return hash;
}

uint64_t dk_xpu_choice_hash(const dk_xpu *xpu, const dk_attention_args *args)
{
    dk_attention_args a = *args;
    a.q_len = (a.q_len + STEP - 1) / STEP * STEP;
    a.kv_len = (a.kv_len + STEP - 1) / STEP * STEP;
    const dk_xpu_key key = dk_xpu_attention_key(&a);
    const dnnl_version_t *library = dnnl_version();
    const int numbers[] = {library->major, library->minor, library->patch};
    uint64_t hash = mix(0xcbf29ce484222325u, xpu->identity, strlen(xpu->identity));
    hash = mix(hash, numbers, sizeof numbers);
    return mix(hash, &key, sizeof key);
}

/* Owned; NULL: there is no place for it. XDG_CACHE_HOME, else ~/.cache. */
static char *folder_of_choices(void)
{
    const char *cache = dk_environment("XDG_CACHE_HOME"), *home = dk_environment("HOME");
    if (cache != NULL && cache[0] == '/') {
        return dk_path_join(cache, "darkroom");
    }
    return home != NULL && home[0] == '/' ? dk_path_join(home, ".cache/darkroom") : NULL;
}

static char *path_of_choices(bool make)
{
    char *folder = folder_of_choices(), *path = NULL;
    if (folder != NULL && (!make || dk_make_folders(folder, NULL) == DK_OK)) {
        path = dk_path_join(folder, "xpu-attention");
    }
    dk_free(folder);
    return path;
}

static void add(dk_xpu_attention_state *state, uint64_t hash, dk_xpu_attention_path path,
                bool stored)
{
    size_t count = (size_t)state->choice_count + 1;
    state->choices = dk_realloc(state->choices, count * sizeof *state->choices);
    state->choices[state->choice_count++] = (dk_xpu_attention_choice){hash, path, stored};
}

void dk_xpu_choices_read(dk_xpu *xpu)
{
    char line[LINE], name[32];
    unsigned long long hash;
    char *path = path_of_choices(false);
    FILE *file = path != NULL ? fopen(path, "r") : NULL;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "%llx %31s", &hash, name) != 2) {
            continue;
        }
        for (int i = 0; i < DK_XPU_PATH_COUNT; i++) {
            if (strcmp(name, dk_xpu_path_names[i]) == 0) {
                add(&xpu->attention, hash, (dk_xpu_attention_path)i, true);
            }
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    dk_free(path);
}

dk_xpu_attention_choice *dk_xpu_choice_find(const dk_xpu *xpu, uint64_t hash)
{
    for (int i = 0; i < xpu->attention.choice_count; i++) {
        if (xpu->attention.choices[i].hash == hash) {
            return &xpu->attention.choices[i];
        }
    }
    return NULL;
}

dk_xpu_attention_path dk_xpu_choice_keep(dk_xpu *xpu, uint64_t hash, dk_xpu_attention_path way,
                                         bool lasts)
{
    add(&xpu->attention, hash, way, false);
    char *path = lasts ? path_of_choices(true) : NULL;
    FILE *file = path != NULL ? fopen(path, "a") : NULL;
    if (file != NULL) { /* one write: lines of several processes do not mix */
        char line[LINE];
        int bytes = snprintf(line, sizeof line, "%016llx %s\n", (unsigned long long)hash,
                             dk_xpu_path_names[way]);
        fwrite(line, 1, (size_t)bytes, file);
        fclose(file);
    }
    dk_free(path);
    return way;
}
