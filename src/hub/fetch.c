/* One file: lock, resume, transfer, checksum, rename. */
#include "hub/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/string.h"

enum { PIECE_BYTES = 1 << 20, PROGRESS_EVERY_MS = 100 };

/* The .incomplete file and the checksum of what it holds. */
typedef struct part {
    dk_http_sink sink; /* first: the functions below cast back */
    dk_hub_fetch *fetch;
    const dk_hub_file *file;
    char *path; /* owned */
    int fd;     /* -1 while closed */
    dk_digest digest;
} part;

static bool is_cancelled(const dk_hub_fetch *fetch)
{
    return fetch->options->cancel != NULL && atomic_load(fetch->options->cancel);
}

static void report(part *p, uint64_t done, bool always)
{
    dk_hub_fetch *fetch = p->fetch;
    double now_ms = dk_now_ms();
    if (fetch->options->progress == NULL ||
        (!always && now_ms < fetch->told_ms + PROGRESS_EVERY_MS)) {
        return;
    }
    fetch->told_ms = now_ms;
    fetch->options->progress(fetch->options->progress_context, p->file->path, done,
                             p->file->size, fetch->all_done + done, fetch->all_total);
}

/* A small file is named by Git: the SHA-1 of a header with its size and the content. */
static dk_status start_digest(part *p, dk_error *err)
{
    dk_digest_release(&p->digest);
    if (strlen(p->file->etag) == 64) {
        return dk_sha256_init(&p->digest, err);
    }
    DK_TRY(dk_sha1_init(&p->digest, err));
    dk_string header = DK_STRING_EMPTY;
    dk_string_printf(&header, "blob %llu", (unsigned long long)p->file->size);
    dk_digest_update(&p->digest, header.data, header.length + 1); /* with its NUL */
    dk_string_release(&header);
    return DK_OK;
}

static dk_status restart_part(dk_http_sink *sink, dk_error *err)
{
    part *p = (part *)sink;
    if (ftruncate(p->fd, 0) != 0 || lseek(p->fd, 0, SEEK_SET) != 0) {
        return dk_fail(err, DK_IO, "%s: %s", p->path, strerror(errno));
    }
    return start_digest(p, err);
}

static dk_status write_part(dk_http_sink *sink, const void *bytes, size_t size, dk_error *err)
{
    part *p = (part *)sink;
    const char *from = bytes;
    for (size_t done = 0; done < size;) {
        ssize_t put = write(p->fd, from + done, size - done);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return dk_fail(err, DK_IO, "%s: %s", p->path, strerror(errno));
        }
        done += (size_t)put;
    }
    dk_digest_update(&p->digest, bytes, size);
    report(p, sink->offset + size, false);
    return DK_OK;
}

/* Adds what an earlier run left to the checksum; the file offset ends behind it. */
static dk_status read_held(part *p, dk_error *err)
{
    char *piece = dk_alloc(PIECE_BYTES);
    dk_status status = DK_OK;
    while (status == DK_OK) {
        ssize_t got = read(p->fd, piece, PIECE_BYTES);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            status = dk_fail(err, DK_IO, "%s: %s", p->path, strerror(errno));
        } else if (is_cancelled(p->fetch)) {
            status = dk_fail(err, DK_CANCELLED, "%s: cancelled", p->file->path);
        }
        if (got <= 0 || status != DK_OK) {
            break;
        }
        dk_digest_update(&p->digest, piece, (size_t)got);
        p->sink.offset += (uint64_t)got;
    }
    dk_free(piece);
    return status;
}

static dk_status open_part(part *p, dk_error *err)
{
    struct stat info;
    p->fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (p->fd < 0 || fstat(p->fd, &info) != 0) {
        return dk_fail(err, DK_IO, "%s: %s", p->path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return dk_fail(err, DK_IO, "%s: not a regular file", p->path);
    }
    p->sink.offset = 0;
    if ((uint64_t)info.st_size > p->file->size) {
        return restart_part(&p->sink, err);
    }
    DK_TRY(start_digest(p, err));
    return read_held(p, err);
}

/* Refuses another file before its first byte; an empty or unknown fact is no objection. */
static dk_status check_facts(dk_http_sink *sink, const dk_http_facts *facts, dk_error *err)
{
    const part *p = (const part *)sink;
    if (facts->commit[0] != '\0' && strcmp(facts->commit, p->fetch->commit) != 0) {
        return dk_fail(err, DK_FORMAT, "the server sends it from commit %s, expected %s",
                       facts->commit, p->fetch->commit);
    }
    if (facts->etag[0] != '\0' && strcmp(facts->etag, p->file->etag) != 0) {
        return dk_fail(err, DK_FORMAT, "the server says its checksum is %s, the listing %s",
                       facts->etag, p->file->etag);
    }
    if (facts->size != UINT64_MAX && facts->size != p->file->size) {
        return dk_fail(err, DK_FORMAT, "the server says it has %llu bytes, the listing %llu",
                       (unsigned long long)facts->size, (unsigned long long)p->file->size);
    }
    return DK_OK;
}

static dk_status transfer(part *p, dk_error *err)
{
    dk_hub_fetch *fetch = p->fetch;
    dk_string path = DK_STRING_EMPTY, what = DK_STRING_EMPTY;
    char *escaped = dk_http_escape(p->file->path, true);
    dk_string_printf(&path, "%s/resolve/%s/%s", fetch->model, fetch->commit, escaped);
    dk_string_printf(&what, "%s: %s", fetch->model, p->file->path);
    char *url = dk_http_url(fetch->http, path.data);
    dk_http_request request = {.url = url, .what = what.data, .model = fetch->model};
    dk_status status = dk_http_get(fetch->http, &request, &p->sink, err);
    dk_free(url);
    dk_free(escaped);
    dk_string_release(&path);
    dk_string_release(&what);
    return status;
}

/* Compares the checksum and gives the blob its name; *wrong tells of a wrong sum. */
static dk_status settle(part *p, bool *wrong, dk_error *err)
{
    char sum[DK_SHA256_HEX_BYTES];
    dk_digest_final(&p->digest, sum);
    *wrong = strcmp(sum, p->file->etag) != 0;
    if (*wrong) {
        return dk_fail(err, DK_FORMAT,
                       "%s: %s: the content's checksum is %s, expected %s; it was removed",
                       p->fetch->model, p->file->path, sum, p->file->etag);
    }
    char *blob = dk_hub_cache_blob(p->fetch->cache, p->file->etag);
    dk_status status = dk_file_publish(p->path, blob, err);
    dk_free(blob);
    return status;
}

/* One pass under the lock. *again is set when a part of an earlier run may be what was wrong.
 */
static dk_status fetch_once(part *p, bool *again, dk_error *err)
{
    bool wrong = false;
    dk_status status = open_part(p, err);
    uint64_t held = p->sink.offset;
    if (status == DK_OK && held > 0) {
        dk_log_info(p->fetch->options->log, "%s: going on after %llu of %llu bytes",
                    p->file->path, (unsigned long long)held, (unsigned long long)p->file->size);
    }
    if (status == DK_OK && held < p->file->size) {
        status = transfer(p, err);
        wrong = status == DK_FORMAT;
    }
    if (status == DK_OK) {
        status = settle(p, &wrong, err);
    }
    if (p->fd >= 0) {
        close(p->fd);
        p->fd = -1;
    }
    if (wrong) {
        unlink(p->path);
    }
    dk_digest_release(&p->digest);
    *again = wrong && held > 0;
    return status;
}

dk_status dk_hub_fetch_blob(dk_hub_fetch *fetch, const dk_hub_file *file, dk_error *err)
{
    if (dk_hub_cache_has_blob(fetch->cache, file->etag, file->size)) {
        return DK_OK;
    }
    if (is_cancelled(fetch)) {
        return dk_fail(err, DK_CANCELLED, "%s: cancelled", fetch->model);
    }
    int lock = -1;
    DK_TRY(dk_hub_cache_lock(&lock, fetch->cache, file->etag, fetch->options->cancel,
                             fetch->options->log, err));
    part p = {.sink = {.expected = file->size,
                       .accept = check_facts,
                       .write = write_part,
                       .restart = restart_part},
              .fetch = fetch,
              .file = file,
              .path = dk_hub_cache_incomplete(fetch->cache, file->etag),
              .fd = -1};
    dk_status status = DK_OK;
    /* Another process may have fetched it while this one waited. */
    if (!dk_hub_cache_has_blob(fetch->cache, file->etag, file->size)) {
        bool again = false;
        report(&p, 0, true);
        status = fetch_once(&p, &again, err);
        if (again) {
            dk_log_warn(fetch->options->log,
                        "%s: the part of an earlier run did not fit; "
                        "fetching it again",
                        file->path);
            status = fetch_once(&p, &again, err);
        }
    }
    if (status == DK_OK) {
        report(&p, file->size, true);
        fetch->all_done += file->size;
    }
    dk_free(p.path);
    if (lock >= 0) {
        close(lock);
    }
    return status;
}
