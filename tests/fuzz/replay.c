/* Feeds every file of a corpus folder to a fuzz target once: the fuzzers' regression test. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    if (folder == NULL) {
        fprintf(stderr, "usage: %s CORPUS_FOLDER\n", argv[0]);
        return 2;
    }
    int count = 0;
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char *path = dk_path_join(argv[1], entry->d_name), *data;
        size_t size;
        if (!dk_path_is_folder(path)) {
            dk_error err;
            if (dk_file_read(&data, &size, path, SIZE_MAX / 2, &err) != DK_OK) {
                fprintf(stderr, "%s\n", err.message);
                return 1;
            }
            LLVMFuzzerTestOneInput((const uint8_t *)data, size);
            dk_free(data);
            count++;
        }
        dk_free(path);
    }
    closedir(folder);
    printf("%d inputs replayed\n", count);
    return count > 0 ? 0 : 1;
}
