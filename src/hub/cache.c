/* The cache's layout; follows huggingface_hub's file_download.py, so that both programs find
   and lock each other's files. */
#define _DEFAULT_SOURCE /* flock */
#include "hub/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"

enum { NAME_PART_MAX = 96, REVISION_MAX = 200, REF_FILE_MAX = 4096, LOCK_POLL_MS = 50 };

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '.' || c == '_' || c == '-';
}

static bool is_name_part(const char *part, size_t length)
{
    if (length == 0 || length > NAME_PART_MAX || strchr("-.", part[0]) != NULL ||
        strchr("-.", part[length - 1]) != NULL) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        bool pair = i > 0 && part[i] == part[i - 1] && (part[i] == '-' || part[i] == '.');
        if (!is_name_char(part[i]) || pair) {
            return false;
        }
    }
    return true;
}

bool dk_hub_is_model_name(const char *model)
{
    const char *slash = strchr(model, '/');
    return slash != NULL && is_name_part(model, (size_t)(slash - model)) &&
           is_name_part(slash + 1, strlen(slash + 1));
}

bool dk_hub_is_revision(const char *revision)
{
    size_t length = strlen(revision);
    if (length > REVISION_MAX || !dk_path_is_inside(revision, true)) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if (!is_name_char(revision[i]) && revision[i] != '/') {
            return false;
        }
    }
    return true;
}

bool dk_hub_is_hex(const char *text, size_t digits)
{
    return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

void dk_hub_cache_init(dk_hub_cache *cache, const char *cache_folder, const char *model)
{
    const char *slash = strchr(model, '/');
    dk_string name = DK_STRING_EMPTY;
    dk_string_printf(&name, "models--%.*s--%s", (int)(slash - model), model, slash + 1);
    cache->root = dk_path_join(cache_folder, name.data);
    char *locks = dk_path_join(cache_folder, ".locks");
    cache->locks = dk_path_join(locks, name.data);
    dk_free(locks);
    dk_string_release(&name);
}

void dk_hub_cache_release(dk_hub_cache *cache)
{
    dk_free(cache->root);
    dk_free(cache->locks);
    *cache = (dk_hub_cache){0};
}

/* <root>/<folder>/<leaf><tail>, owned. */
static char *path_in(const dk_hub_cache *cache, const char *folder, const char *leaf,
                     const char *tail)
{
    dk_string path = DK_STRING_EMPTY;
    dk_string_printf(&path, "%s/%s/%s%s", cache->root, folder, leaf, tail);
    return dk_string_take(&path);
}

char *dk_hub_cache_snapshot(const dk_hub_cache *cache, const char *commit)
{
    return path_in(cache, "snapshots", commit, "");
}

char *dk_hub_cache_blob(const dk_hub_cache *cache, const char *etag)
{
    return path_in(cache, "blobs", etag, "");
}

char *dk_hub_cache_incomplete(const dk_hub_cache *cache, const char *etag)
{
    return path_in(cache, "blobs", etag, ".incomplete");
}

bool dk_hub_cache_commit(char commit[DK_HUB_COMMIT_BYTES], const dk_hub_cache *cache,
                         const char *revision)
{
    enum { DIGITS = DK_HUB_COMMIT_BYTES - 1 };
    if (dk_hub_is_hex(revision, DIGITS)) {
        memcpy(commit, revision, DK_HUB_COMMIT_BYTES);
        return true;
    }
    char *path = path_in(cache, "refs", revision, "");
    char *text = NULL;
    size_t size = 0;
    bool known = dk_file_read(&text, &size, path, REF_FILE_MAX, NULL) == DK_OK;
    if (known) {
        text[strcspn(text, " \r\n")] = '\0';
        known = dk_hub_is_hex(text, DIGITS);
    }
    if (known) {
        memcpy(commit, text, DK_HUB_COMMIT_BYTES);
    }
    dk_free(text);
    dk_free(path);
    return known;
}

/* Makes the folders above a file. */
static dk_status make_parent(const char *path, dk_error *err)
{
    char *folder = dk_strndup(path, (size_t)(dk_path_name(path) - path) - 1);
    dk_status status = dk_make_folders(folder, err);
    dk_free(folder);
    return status;
}

dk_status dk_hub_cache_set_commit(const dk_hub_cache *cache, const char *revision,
                                  const char *commit, dk_error *err)
{
    char known[DK_HUB_COMMIT_BYTES];
    if (dk_hub_cache_commit(known, cache, revision) && strcmp(known, commit) == 0) {
        return DK_OK;
    }
    char *path = path_in(cache, "refs", revision, "");
    dk_status status = make_parent(path, err);
    if (status == DK_OK) {
        status = dk_file_write(path, commit, strlen(commit), err);
    }
    dk_free(path);
    return status;
}

/* The size of a regular file; false when there is none. */
static bool file_size(uint64_t *size, const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode)) {
        return false;
    }
    *size = (uint64_t)info.st_size;
    return true;
}

bool dk_hub_cache_has_blob(const dk_hub_cache *cache, const char *etag, uint64_t size)
{
    char *path = dk_hub_cache_blob(cache, etag);
    uint64_t found = 0;
    bool there = file_size(&found, path) && found == size;
    dk_free(path);
    return there;
}

uint64_t dk_hub_cache_partial(const dk_hub_cache *cache, const char *etag)
{
    char *path = dk_hub_cache_incomplete(cache, etag);
    uint64_t found = 0;
    bool there = file_size(&found, path);
    dk_free(path);
    return there ? found : 0;
}

/* Puts the link at `path`; what another process put there meanwhile is as good if it is equal.
 */
static dk_status make_link(const char *target, const char *path, dk_error *err)
{
    char found[256]; /* a target is a few "../" and an etag */
    for (int attempt = 0; attempt < 3; attempt++) {
        if (symlink(target, path) == 0) {
            return DK_OK;
        }
        if (errno != EEXIST) {
            break;
        }
        ssize_t length = readlink(path, found, sizeof found);
        if (length == (ssize_t)strlen(target) && memcmp(found, target, (size_t)length) == 0) {
            return DK_OK;
        }
        if (unlink(path) != 0 && errno != ENOENT) {
            break;
        }
    }
    return dk_fail(err, DK_IO, "%s: the symbolic link to the blob cannot be made: %s", path,
                   strerror(errno));
}

dk_status dk_hub_cache_link(const dk_hub_cache *cache, const char *commit, const char *name,
                            const char *etag, dk_error *err)
{
    char *snapshot = dk_hub_cache_snapshot(cache, commit);
    char *path = dk_path_join(snapshot, name);
    dk_string target = DK_STRING_EMPTY;
    dk_string_puts(&target, "../../");
    for (const char *p = name; *p != '\0'; p++) {
        if (*p == '/') {
            dk_string_puts(&target, "../");
        }
    }
    dk_string_printf(&target, "blobs/%s", etag);
    dk_status status = make_parent(path, err);
    if (status == DK_OK) {
        status = make_link(target.data, path, err);
    }
    dk_string_release(&target);
    dk_free(path);
    dk_free(snapshot);
    return status;
}

/* Polls, so that a cancel is heard while another process downloads for an hour. */
static dk_status wait_for_lock(int *fd, const char *path, const atomic_bool *cancel,
                               const dk_log *log, dk_error *err)
{
    bool told = false;
    while (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            dk_log_debug(log, "%s: no locks on this file system: %s", path, strerror(errno));
            close(*fd);
            *fd = -1;
            return DK_OK;
        }
        if (!told) {
            dk_log_info(log, "%s: waiting for another process that fetches this file", path);
            told = true;
        }
        if (cancel != NULL && atomic_load(cancel)) {
            return dk_fail(err, DK_CANCELLED, "%s: cancelled while waiting for the lock", path);
        }
        struct timespec pause = {.tv_nsec = LOCK_POLL_MS * 1000000L};
        nanosleep(&pause, NULL);
    }
    return DK_OK;
}

dk_status dk_hub_cache_lock(int *lock, const dk_hub_cache *cache, const char *etag,
                            const atomic_bool *cancel, const dk_log *log, dk_error *err)
{
    DK_TRY(dk_make_folders(cache->locks, err));
    dk_string path = DK_STRING_EMPTY;
    dk_string_printf(&path, "%s/%s.lock", cache->locks, etag);
    dk_status status = DK_OK;
    int fd = open(path.data, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        status = dk_fail(err, DK_IO, "%s: %s", path.data, strerror(errno));
        goto done;
    }
    status = wait_for_lock(&fd, path.data, cancel, log, err);
    if (status == DK_OK) {
        *lock = fd;
    } else {
        close(fd);
    }
done:
    dk_string_release(&path);
    return status;
}

dk_status dk_hub_cache_check_space(const dk_hub_cache *cache, uint64_t needed, dk_error *err)
{
    struct statvfs info;
    if (statvfs(cache->root, &info) != 0) {
        return DK_OK; /* A file system that cannot tell is left to fail at the write. */
    }
    uint64_t available;
    if (__builtin_mul_overflow((uint64_t)info.f_bavail, (uint64_t)info.f_frsize, &available) ||
        needed <= available) {
        return DK_OK;
    }
    return dk_fail(err, DK_IO,
                   "%s: %.3f GB are needed for the download, %.3f GB are available; free some "
                   "space or choose another cache with HF_HOME",
                   cache->root, (double)needed * 1e-9, (double)available * 1e-9);
}
