/* Folder operations. */
#include "cli/folder.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"

enum { MAX_DEPTH = 6, MAX_FILES = 20000 };

static void add(dk_file_list *list, const char *path, uint64_t size)
{
    size_t count = (size_t)list->count + 1;
    list->paths = dk_realloc(list->paths, count * sizeof *list->paths);
    list->sizes = dk_realloc(list->sizes, count * sizeof *list->sizes);
    list->paths[list->count] = dk_strdup(path);
    list->sizes[list->count++] = size;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* Lists folder/below; `below` is "" at the top. */
static dk_status list(dk_file_list *out, const char *folder, const char *below, int depth,
                      dk_error *err)
{
    struct dirent **entries = NULL;
    char *here = below[0] != '\0' ? dk_path_join(folder, below) : dk_strdup(folder);
    int count = scandir(here, &entries, visible, alphasort);
    dk_status status = DK_OK;
    if (count < 0) {
        status = dk_fail(err, DK_IO, "%s: %s", here, strerror(errno));
    }
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        char *relative = below[0] != '\0' ? dk_path_join(below, name) : dk_strdup(name);
        char *path = dk_path_join(here, name);
        struct stat info;
        if (status != DK_OK) {
            /* only released */
        } else if (stat(path, &info) != 0) {
            status = dk_fail(err, DK_IO, "%s: %s", path, strerror(errno));
        } else if (S_ISDIR(info.st_mode) && depth == MAX_DEPTH) {
            status = dk_fail(err, DK_FORMAT, "%s: more than %d folders deep", path, MAX_DEPTH);
        } else if (S_ISDIR(info.st_mode)) {
            status = list(out, folder, relative, depth + 1, err);
        } else if (S_ISREG(info.st_mode) && out->count == MAX_FILES) {
            status = dk_fail(err, DK_FORMAT, "%s: more than %d files", folder, MAX_FILES);
        } else if (S_ISREG(info.st_mode)) {
            add(out, relative, (uint64_t)info.st_size);
        }
        dk_free(path);
        dk_free(relative);
        free(entries[i]);
    }
    free(entries);
    dk_free(here);
    return status;
}

dk_status dk_list_files(dk_file_list *out, const char *folder, dk_error *err)
{
    dk_file_list files = {0};
    dk_status status = list(&files, folder, "", 0, err);
    if (status != DK_OK) {
        dk_file_list_release(&files);
        return status;
    }
    *out = files;
    return DK_OK;
}

void dk_file_list_release(dk_file_list *files)
{
    for (int i = 0; i < files->count; i++) {
        dk_free(files->paths[i]);
    }
    dk_free(files->paths);
    dk_free(files->sizes);
    *files = (dk_file_list){0};
}

bool dk_folder_is_empty(const char *path)
{
    DIR *folder = opendir(path);
    bool empty = true;
    const struct dirent *entry;
    while (folder != NULL && empty && (entry = readdir(folder)) != NULL) {
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return empty;
}

dk_status dk_copy_file(const char *to, const char *from, const atomic_bool *cancel,
                       dk_error *err)
{
    enum { PIECE = 4 * 1024 * 1024 };
    dk_mapping source;
    DK_TRY(dk_mapping_open(&source, from, err));
    FILE *file = fopen(to, "wbx");
    bool kept = file != NULL, stop = false;
    for (size_t at = 0; at < source.size && kept && !stop; at += PIECE) {
        size_t bytes = source.size - at < PIECE ? source.size - at : PIECE;
        kept = fwrite(source.data + at, 1, bytes, file) == bytes;
        stop = cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed);
    }
    if (file != NULL) {
        kept = fflush(file) == 0 && fsync(fileno(file)) == 0 && kept;
        kept = fclose(file) == 0 && kept;
    }
    dk_status status = DK_OK;
    if (!kept) {
        status = dk_fail(err, DK_IO, "%s: %s", to, strerror(errno));
    } else if (stop) {
        status = dk_fail(err, DK_CANCELLED, "stopped on request");
    }
    dk_mapping_close(&source);
    return status;
}

const char *dk_run_folder_base(void)
{
    const char *run = getenv("XDG_RUNTIME_DIR"), *temporary = getenv("TMPDIR");
    if (run != NULL && run[0] == '/' && access(run, W_OK) == 0) {
        return run;
    }
    return temporary != NULL && temporary[0] == '/' ? temporary : P_tmpdir;
}

bool dk_path_below(const char *path, const char *folder)
{
    char *inside = dk_strdup(path), *outer = realpath(folder, NULL), *real;
    while ((real = realpath(inside, NULL)) == NULL) { /* the nearest part that exists */
        char *slash = strrchr(inside, '/');
        if (slash == NULL || slash == inside) {
            real = realpath(slash == NULL ? "." : "/", NULL);
            break;
        }
        *slash = '\0';
    }
    size_t length = outer != NULL ? strlen(outer) : 0;
    bool below = outer != NULL && real != NULL && strncmp(real, outer, length) == 0 &&
                 (real[length] == '/' || real[length] == '\0' || strcmp(outer, "/") == 0);
    free(real);
    free(outer);
    dk_free(inside);
    return below;
}
