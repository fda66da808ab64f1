/* Files: sent by the kernel where TLS is off, whole or one range of them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/string.h"
#include "server/http/internal.h"
#include "server/http/range.h"

enum { ETAG_BYTES = 64, DATE_BYTES = 48 };

/* An open file and what names its present content. */
typedef struct content {
    int fd;
    uint64_t size;
    char etag[ETAG_BYTES], modified[DATE_BYTES];
    const char *type, *download_name;
} content;

bool dk_http_is_known(const dk_http_exchange *exchange, const char *etag)
{
    const char *p = dk_http_header(exchange, "If-None-Match");
    size_t length = strlen(etag);
    if (p == NULL) {
        return false;
    }
    while (*p != '\0') {
        p += strspn(p, " \t,");
        if (*p == '*') {
            return true;
        }
        p += p[0] == 'W' && p[1] == '/' ? 2 : 0;
        if (strncmp(p, etag, length) == 0) {
            return true;
        }
        const char *quote = *p == '"' ? strchr(p + 1, '"') : NULL;
        p = quote != NULL ? quote + 1 : p + strcspn(p, ",");
    }
    return false;
}

/* RFC 9110's date, in English whatever the locale says. */
static void format_date(char out[DATE_BYTES], time_t time)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm tm = {0};
    gmtime_r(&time, &tm);
    snprintf(out, DATE_BYTES, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * tm.tm_wday,
             tm.tm_mday % 100, months + 3 * tm.tm_mon, (tm.tm_year + 1900) % 10000,
             tm.tm_hour % 100, tm.tm_min % 100, tm.tm_sec % 100);
}

static dk_status open_content(content *out, const char *path)
{
    struct stat info;
    /* Not blocking, should somebody have put a pipe there. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        return errno == ENOENT || errno == ENOTDIR ? DK_NOT_FOUND : DK_IO;
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return DK_NOT_FOUND;
    }
    out->fd = fd;
    out->size = (uint64_t)info.st_size;
    snprintf(out->etag, sizeof out->etag, "\"%llx-%llx-%llx\"", (unsigned long long)info.st_ino,
             (unsigned long long)info.st_size,
             (unsigned long long)info.st_mtim.tv_sec * 1000000000ull +
                 (unsigned long long)info.st_mtim.tv_nsec);
    format_date(out->modified, info.st_mtim.tv_sec);
    return DK_OK;
}

static void add_disposition(dk_http_exchange *exchange, const char *name)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "-._~";
    dk_string value = DK_STRING_EMPTY;
    bool is_plain = true;
    dk_string_puts(&value, "attachment; filename=\"");
    for (const char *p = name; *p != '\0'; p++) {
        bool keeps = strchr(plain, *p) != NULL || *p == ' ';
        dk_string_putc(&value, keeps ? *p : '_');
        is_plain = is_plain && keeps;
    }
    dk_string_putc(&value, '"');
    if (!is_plain) { /* RFC 6266: the true name for those who understand it */
        dk_string_puts(&value, "; filename*=UTF-8''");
        for (const char *p = name; *p != '\0'; p++) {
            if (strchr(plain, *p) != NULL) {
                dk_string_putc(&value, *p);
            } else {
                dk_string_printf(&value, "%%%02X", (unsigned)(unsigned char)*p);
            }
        }
    }
    dk_http_add_header(exchange, "Content-Disposition", value.data);
    dk_string_release(&value);
}

/* If-Range: the client's part belongs to this content; absent: nothing is held. */
static bool range_is_current(const dk_http_exchange *exchange, const content *file)
{
    const char *condition = dk_http_header(exchange, "If-Range");
    return condition == NULL || strcmp(condition, file->etag) == 0 ||
           strcmp(condition, file->modified) == 0;
}

/* Sends size bytes from offset; the file is taken. */
static void reply_part(dk_http_exchange *exchange, int http_status, content *file,
                       uint64_t offset, uint64_t size)
{
    bool is_get = strcmp(exchange->method, "HEAD") != 0;
    struct MHD_Response *response;
    dk_http_add_header(exchange, "Content-Type", file->type);
    if (file->download_name != NULL) {
        add_disposition(exchange, file->download_name);
    }
    if (size > 0) {
        response = MHD_create_response_from_fd_at_offset64(size, file->fd, offset);
    } else {
        close(file->fd);
        response = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
    }
    exchange->bytes_out = is_get ? size : 0;
    dk_http_finish(exchange, http_status, response);
}

static void reply_content(dk_http_exchange *exchange, content *file)
{
    char range[96];
    uint64_t first = 0, length = file->size;
    dk_http_range_kind kind = DK_HTTP_RANGE_WHOLE;
    if (strcmp(exchange->method, "GET") == 0 && range_is_current(exchange, file)) {
        kind =
            dk_http_range_parse(dk_http_header(exchange, "Range"), file->size, &first, &length);
    }
    if (kind == DK_HTTP_RANGE_OUTSIDE) {
        close(file->fd);
        snprintf(range, sizeof range, "bytes */%llu", (unsigned long long)file->size);
        dk_http_add_header(exchange, "Content-Range", range);
        dk_http_reply_problem(exchange, 416, "the range lies outside of the file", NULL, NULL);
    } else if (kind == DK_HTTP_RANGE_PART) {
        snprintf(range, sizeof range, "bytes %llu-%llu/%llu", (unsigned long long)first,
                 (unsigned long long)(first + length - 1), (unsigned long long)file->size);
        dk_http_add_header(exchange, "Content-Range", range);
        reply_part(exchange, 206, file, first, length);
    } else {
        reply_part(exchange, 200, file, 0, file->size);
    }
}

void dk_http_reply_file(dk_http_exchange *exchange, const char *path, const char *type,
                        const char *download_name)
{
    content file = {.type = type, .download_name = download_name};
    dk_status status = open_content(&file, path);
    if (status == DK_NOT_FOUND) {
        dk_http_reply_error(exchange, DK_NOT_FOUND, "the file does not exist", NULL, NULL);
        return;
    }
    if (status != DK_OK) {
        dk_log_warn(exchange->server->options.log, "http: %s cannot be opened: %s", path,
                    strerror(errno));
        dk_http_reply_error(exchange, DK_IO, "the file cannot be opened", NULL, NULL);
        return;
    }
    dk_http_add_header(exchange, "ETag", file.etag);
    dk_http_add_header(exchange, "Last-Modified", file.modified);
    dk_http_add_header(exchange, "Accept-Ranges", "bytes");
    dk_http_add_default(exchange, "Cache-Control", "private, no-cache");
    if (dk_http_is_known(exchange, file.etag)) {
        close(file.fd);
        dk_http_reply_empty(exchange, 304);
        return;
    }
    reply_content(exchange, &file);
}
