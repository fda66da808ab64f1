/* Making and removing the private folder. */
#include "server/serve/run_folder.h"

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
#include "base/sha256.h"

static void empty(const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            char *path = dk_path_join(folder, entry->d_name);
            unlink(path);
            dk_free(path);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
}

dk_status dk_run_folder_make(char **out, const char *base, const char *store_path,
                             dk_error *err)
{
    enum { DIGITS = 12 };
    char real[PATH_MAX], hex[DK_SHA256_HEX_BYTES], path[PATH_MAX];
    dk_digest digest;
    struct stat info;
    if (realpath(store_path, real) == NULL) {
        return dk_fail(err, DK_IO, "%s: %s", store_path, strerror(errno));
    }
    DK_TRY(dk_sha256_init(&digest, err));
    dk_digest_update(&digest, real, strlen(real));
    dk_digest_final(&digest, hex);
    snprintf(path, sizeof path, "%s/darkroom-%u-%.*s", base, (unsigned)geteuid(), DIGITS, hex);
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return dk_fail(err, DK_IO, "%s: %s", path, strerror(errno));
    }
    if (lstat(path, &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != geteuid() ||
        (info.st_mode & 077) != 0) {
        return dk_fail(err, DK_DENIED,
                       "%s: is not a folder of mode 0700 that belongs to this "
                       "user; remove it",
                       path);
    }
    empty(path);
    *out = dk_strdup(path);
    return DK_OK;
}

void dk_run_folder_remove(const char *folder)
{
    empty(folder);
    rmdir(folder);
}
