/* Files. */
#define _GNU_SOURCE
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/string.h"

static dk_status fail_errno(dk_error *err, const char *path)
{
    int code = errno;
    dk_status status = code == ENOENT || code == ENOTDIR  ? DK_NOT_FOUND
                       : code == ENOSPC || code == EDQUOT ? DK_NO_SPACE
                                                          : DK_IO;
    return dk_fail(err, status, "%s: %s", path, strerror(code));
}

static dk_status open_regular(int *fd, size_t *size, const char *path, dk_error *err)
{
    struct stat info;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) {
        return fail_errno(err, path);
    }
    if (fstat(*fd, &info) != 0) {
        dk_status status = fail_errno(err, path);
        close(*fd);
        return status;
    }
    if (!S_ISREG(info.st_mode)) {
        close(*fd);
        return dk_fail(err, DK_INVALID, "%s: not a regular file", path);
    }
    *size = (size_t)info.st_size;
    return DK_OK;
}

dk_status dk_mapping_open(dk_mapping *out, const char *path, dk_error *err)
{
    int fd;
    size_t size;
    DK_TRY(open_regular(&fd, &size, path, err));
    void *data = NULL;
    if (size > 0) {
        data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            dk_status status = fail_errno(err, path);
            close(fd);
            return status;
        }
    }
    close(fd);
    out->data = data;
    out->size = size;
    return DK_OK;
}

void dk_mapping_close(dk_mapping *mapping)
{
    if (mapping->data != NULL) {
        munmap((void *)(uintptr_t)mapping->data, mapping->size);
    }
    mapping->data = NULL;
    mapping->size = 0;
}

static dk_status read_all(int fd, char *data, size_t size, const char *path, dk_error *err)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = read(fd, data + done, size - done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return fail_errno(err, path);
        }
        if (got == 0) {
            return dk_fail(err, DK_IO, "%s: the file became shorter while it was read", path);
        }
        done += (size_t)got;
    }
    return DK_OK;
}

dk_status dk_file_read(char **out, size_t *size, const char *path, size_t max_bytes,
                       dk_error *err)
{
    int fd;
    size_t bytes;
    void *data = NULL;
    DK_TRY(open_regular(&fd, &bytes, path, err));
    dk_status status = DK_OK;
    if (bytes > max_bytes) {
        status = dk_fail(err, DK_FORMAT, "%s: %zu bytes, at most %zu are accepted", path, bytes,
                         max_bytes);
        goto done;
    }
    DK_TRY_DONE(dk_try_alloc(&data, bytes + 1, path, err));
    DK_TRY_DONE(read_all(fd, data, bytes, path, err));
    ((char *)data)[bytes] = '\0';
    *out = data;
    *size = bytes;
    data = NULL;
done:
    dk_free(data);
    close(fd);
    return status;
}

char *dk_file_temporary(const char *path)
{
    dk_string name = DK_STRING_EMPTY;
    const char *leaf = dk_path_name(path);
    dk_string_append(&name, path, (size_t)(leaf - path));
    dk_string_printf(&name, ".%s.%ld.part", leaf, (long)getpid());
    /* Encoders pick the container by the ending: keep it. */
    const char *dot = strrchr(leaf, '.');
    dk_string_puts(&name, dot != NULL ? dot : "");
    return dk_string_take(&name);
}

dk_status dk_file_publish(const char *temporary, const char *path, dk_error *err)
{
    int fd = open(temporary, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fail_errno(err, path);
    }
    int failed = fsync(fd);
    close(fd);
    if (failed != 0 || rename(temporary, path) != 0) {
        return fail_errno(err, path);
    }
    return DK_OK;
}

dk_status dk_file_write_all(int fd, const char *data, size_t size, const char *path,
                            dk_error *err)
{
    size_t done = 0;
    while (done < size) {
        ssize_t put = write(fd, data + done, size - done);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return fail_errno(err, path);
        }
        done += (size_t)put;
    }
    return DK_OK;
}

dk_status dk_file_write_pieces(const char *path, const char *temporary,
                               const dk_file_piece *pieces, int count, dk_error *err)
{
    dk_status status = DK_OK;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        return fail_errno(err, path);
    }
    for (int i = 0; i < count && status == DK_OK; i++) {
        status = dk_file_write_all(fd, pieces[i].data, pieces[i].size, path, err);
    }
    if (close(fd) != 0 && status == DK_OK) {
        status = fail_errno(err, path);
    }
    if (status == DK_OK) {
        status = dk_file_publish(temporary, path, err);
    }
    if (status != DK_OK) {
        unlink(temporary);
    }
    return status;
}

dk_status dk_file_write(const char *path, const void *data, size_t size, dk_error *err)
{
    char *temporary = dk_file_temporary(path);
    const dk_file_piece whole = {data, size};
    dk_status status = dk_file_write_pieces(path, temporary, &whole, 1, err);
    dk_free(temporary);
    return status;
}

dk_file_stamp dk_file_stamp_of(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        return (dk_file_stamp){0};
    }
    return (dk_file_stamp){.bytes = (int64_t)info.st_size,
                           .changed_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 +
                                         info.st_mtim.tv_nsec};
}

bool dk_path_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool dk_path_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

char *dk_path_join(const char *folder, const char *name)
{
    dk_string path = DK_STRING_EMPTY;
    dk_string_puts(&path, folder);
    if (path.length > 0 && path.data[path.length - 1] != '/') {
        dk_string_putc(&path, '/');
    }
    dk_string_puts(&path, name);
    return dk_string_take(&path);
}

const char *dk_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

dk_status dk_make_folders(const char *path, dk_error *err)
{
    char *copy = dk_strdup(path);
    dk_status status = DK_OK;
    for (char *p = copy + 1; copy[0] != '\0'; p++) {
        if (*p == '/' || *p == '\0') {
            char end = *p;
            *p = '\0';
            if (mkdir(copy, 0777) != 0 && errno != EEXIST) {
                status = fail_errno(err, copy);
                break;
            }
            *p = end;
            if (end == '\0') {
                break;
            }
        }
    }
    if (status == DK_OK && !dk_path_is_folder(path)) {
        status = dk_fail(err, DK_IO, "%s: not a folder", path);
    }
    dk_free(copy);
    return status;
}

/* Goes on after a failure. */
static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    (void)type;
    (void)walk;
    remove(path);
    return 0;
}

bool dk_remove_tree(const char *path)
{
    enum { OPEN_FOLDERS = 16 };
    nftw(path, remove_entry, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    return remove(path) == 0 || errno == ENOENT;
}

bool dk_path_is_inside(const char *name, bool allow_subfolders)
{
    if (name[0] == '\0' || name[0] == '/') {
        return false;
    }
    for (const char *part = name; part != NULL;) {
        const char *end = strchr(part, '/');
        size_t length = end != NULL ? (size_t)(end - part) : strlen(part);
        bool dots =
            (length == 1 && part[0] == '.') || (length == 2 && memcmp(part, "..", 2) == 0);
        if (length == 0 || dots || (end != NULL && !allow_subfolders)) {
            return false;
        }
        part = end != NULL ? end + 1 : NULL;
    }
    for (const unsigned char *p = (const unsigned char *)name; *p != '\0'; p++) {
        if (*p < 0x20 || *p == 0x7f || *p == '\\') {
            return false;
        }
    }
    return true;
}
