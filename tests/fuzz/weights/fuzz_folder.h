/* A folder of its own for targets whose input is a file beside others; removed at the end. */
#ifndef DK_TESTS_FUZZ_FOLDER_H
#define DK_TESTS_FUZZ_FOLDER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"

static char fuzz_folder[64];

static void fuzz_file(char path[128], const char *name)
{
    snprintf(path, 128, "%s/%s", fuzz_folder, name);
}

static void fuzz_put(const char *name, const void *data, size_t size)
{
    char path[128];
    fuzz_file(path, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0) {
        abort();
    }
}

static void fuzz_folder_open(void (*at_end)(void))
{
    snprintf(fuzz_folder, sizeof fuzz_folder, "/tmp/darkroom-fuzz-XXXXXX");
    if (mkdtemp(fuzz_folder) == NULL) {
        abort();
    }
    atexit(at_end);
}

static void fuzz_folder_remove(const char *const *names)
{
    for (int i = 0; names[i] != NULL; i++) {
        char path[128];
        fuzz_file(path, names[i]);
        unlink(path);
    }
    rmdir(fuzz_folder);
}

#endif
