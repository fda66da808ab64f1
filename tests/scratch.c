/* Temporary folders. */
#define _GNU_SOURCE
#include "scratch.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "test.h"

char *scratch_create(void)
{
    const char *base = getenv("TMPDIR");
    char *folder = dk_path_join(base != NULL ? base : "/tmp", "darkroom-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

/* Counts what is no folder below `folder`, removing everything when asked. */
static int walk(const char *folder, int remove_too)
{
    DIR *stream = opendir(folder);
    int count = 0;
    assert_non_null(stream);
    for (struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        struct stat info;
        char *path = dk_path_join(folder, entry->d_name);
        assert_int_equal(lstat(path, &info), 0);
        count += S_ISDIR(info.st_mode) ? walk(path, remove_too) : 1;
        if (remove_too) {
            assert_int_equal(remove(path), 0);
        }
        dk_free(path);
    }
    closedir(stream);
    return count;
}

void scratch_remove(char *folder)
{
    walk(folder, 1);
    assert_int_equal(rmdir(folder), 0);
    dk_free(folder);
}

int scratch_count(const char *folder)
{
    return walk(folder, 0);
}

char *scratch_path(const char *folder, const char *name)
{
    dk_error err;
    char *path = dk_path_join(folder, name);
    char *parent = dk_strndup(path, (size_t)(dk_path_name(path) - path));
    assert_ok(dk_make_folders(parent, &err), err);
    dk_free(parent);
    return path;
}

void scratch_link(const char *folder, const char *name, const char *target)
{
    char real[PATH_MAX], *path = scratch_path(folder, name);
    assert_non_null(realpath(target, real));
    unlink(path);
    assert_int_equal(symlink(real, path), 0);
    dk_free(path);
}

void scratch_write(const char *folder, const char *name, const char *text)
{
    dk_error err;
    char *path = scratch_path(folder, name);
    assert_ok(dk_file_write(path, text, strlen(text), &err), err);
    dk_free(path);
}

void assert_useful(const dk_error *err, const char *path)
{
    if (strstr(err->message, path) == NULL || strlen(err->message) < strlen(path) + 10) {
        fail_msg("not a useful message for %s: %s", path, err->message);
    }
    for (const unsigned char *c = (const unsigned char *)err->message; *c != '\0'; c++) {
        assert_true(*c >= 0x20 && *c != 0x7f);
    }
}
