/* Chrome's trace events:
   docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
   ("Trace Event Format", the array form, complete events). A rank is a process, a lane is a
   thread of it.

   Adding a span only copies it: it comes between two operations that fill the caches, where
   making text of it took five times as long as in a row. The text is made of many at once. */
#include "base/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/string.h"

enum { BUFFER_BYTES = 64 * 1024, EVENT_BYTES = 2048, MOST_LANES = 32, NAME_BYTES = 96 };
enum { MOST_KEPT = 256, TEXTS = 6 };
static const uint64_t MOST_BYTES = (uint64_t)1 << 30;
static const int64_t FLUSH_NS = 1000000000; /* what a crash loses at most */

/* A span with texts of its own. */
typedef struct kept_span {
    dk_trace_span span;
    char texts[TEXTS][NAME_BYTES];
} kept_span;

struct dk_trace {
    pthread_mutex_t lock;
    const dk_log *log;
    char *path;
    int fd, rank;
    char lanes[MOST_LANES][NAME_BYTES];
    int lane_count;
    kept_span kept[MOST_KEPT]; /* [kept_count]: spans that are no text so far */
    int kept_count;
    char buffer[BUFFER_BYTES]; /* whole events that are not in the file so far */
    size_t used;
    int64_t flushed_ns;
    uint64_t bytes, most_bytes; /* of the file, with the buffer */
    uint64_t left_out;          /* spans */
    bool first, broken;
};

/* One event as text, cut off at its size; what is cut would be no JSON and is left out. */
typedef struct event {
    char text[EVENT_BYTES];
    size_t length;
} event;

static void put(event *e, const char *format, ...) DK_PRINTF(2, 3);

static void put(event *e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(e->text + e->length, sizeof e->text - e->length, format, args);
    va_end(args);
    e->length += wanted > 0 ? (size_t)wanted : 0;
    e->length = e->length < sizeof e->text ? e->length : sizeof e->text;
}

/* Cut to NAME_BYTES. */
static void copy_text(char *copy, const char *text)
{
    size_t length = strnlen(text, NAME_BYTES - 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
}

/* "text" as JSON, cut to NAME_BYTES. */
static void put_text(event *e, const char *text)
{
    char copy[NAME_BYTES], escaped[2 * NAME_BYTES];
    size_t used = 0;
    copy_text(copy, text);
    dk_make_printable(copy);
    for (const char *c = copy; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            escaped[used++] = '\\';
        }
        escaped[used++] = *c;
    }
    put(e, "\"%.*s\"", (int)used, escaped);
}

/* Nanoseconds as the format's microseconds. */
static void put_time(event *e, const char *key, int64_t ns)
{
    ns = ns > 0 ? ns : 0;
    put(e, ",\"%s\":%lld.%03d", key, (long long)(ns / 1000), (int)(ns % 1000));
}

/* The file cannot grow any more: what is in it stays as it is. */
static void stop(dk_trace *trace, const char *why)
{
    trace->broken = true;
    trace->used = 0;
    dk_log_warn(trace->log, "%s: %s: the trace ends here", trace->path, why);
}

static void write_buffer(dk_trace *trace)
{
    dk_error err;
    if (trace->used > 0 && !trace->broken &&
        dk_file_write_all(trace->fd, trace->buffer, trace->used, trace->path, &err) != DK_OK) {
        stop(trace, err.message);
    }
    trace->used = 0;
}

/* An event into the buffer, behind a comma. */
static void append(dk_trace *trace, const event *e)
{
    const char *before = trace->first ? "[\n" : ",\n";
    size_t length = e->length + 2;
    if (e->length >= sizeof e->text || trace->bytes + length > trace->most_bytes) {
        trace->left_out++;
        return;
    }
    if (trace->used + length > sizeof trace->buffer) {
        write_buffer(trace);
    }
    memcpy(trace->buffer + trace->used, before, 2);
    memcpy(trace->buffer + trace->used + 2, e->text, e->length);
    trace->used += length;
    trace->bytes += length;
    trace->first = false;
}

static void append_metadata(dk_trace *trace, const char *what, int lane, const char *text,
                            int number)
{
    event e = {.length = 0};
    put(&e, "{\"ph\":\"M\",\"name\":\"%s\",\"pid\":%d,\"tid\":%d,\"args\":{", what, trace->rank,
        lane);
    if (text != NULL) {
        put(&e, "\"name\":");
        put_text(&e, text);
    } else {
        put(&e, "\"sort_index\":%d", number);
    }
    put(&e, "}}");
    append(trace, &e);
}

/* The lane's number, from 1; a new one is introduced. With too many the last takes the rest. */
static int lane_of(dk_trace *trace, const char *name)
{
    for (int i = 0; i < trace->lane_count; i++) {
        if (strncmp(trace->lanes[i], name, NAME_BYTES - 1) == 0) {
            return i + 1;
        }
    }
    if (trace->lane_count == MOST_LANES) {
        return MOST_LANES;
    }
    snprintf(trace->lanes[trace->lane_count], NAME_BYTES, "%s", name);
    int lane = ++trace->lane_count;
    append_metadata(trace, "thread_name", lane, name, 0);
    append_metadata(trace, "thread_sort_index", lane, NULL, lane);
    return lane;
}

static void put_arguments(event *e, const dk_trace_span *span)
{
    const struct {
        const char *name, *text;
    } texts[] = {{"group", span->group},
                 {"operation", span->operation},
                 {"detail", span->detail},
                 {"waits_for", span->waits_for}};
    const char *comma = "";
    put(e, ",\"args\":{");
    if (span->bytes != 0) {
        put(e, "\"bytes\":%lld", (long long)span->bytes);
        comma = ",";
    }
    if (span->rows != 0) {
        put(e, "%s\"rows\":%lld", comma, (long long)span->rows);
        comma = ",";
    }
    if (span->flops > 0) {
        put(e, "%s\"flops\":%.0f", comma, span->flops);
        comma = ",";
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (texts[i].text != NULL) {
            put(e, "%s\"%s\":", comma, texts[i].name);
            put_text(e, texts[i].text);
            comma = ",";
        }
    }
    put(e, "}}");
}

static void tell(dk_trace *trace, const dk_trace_span *span)
{
    event e = {.length = 0};
    int64_t end = span->end_ns > span->begin_ns ? span->end_ns : span->begin_ns;
    int lane = lane_of(trace, span->lane);
    put(&e, "{\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"cat\":", trace->rank, lane);
    put_text(&e, span->lane);
    put(&e, ",\"name\":");
    put_text(&e, span->name);
    put_time(&e, "ts", span->begin_ns);
    put_time(&e, "dur", end - span->begin_ns);
    put_arguments(&e, span);
    append(trace, &e);
}

/* All that is kept goes to the file. */
static void flush(dk_trace *trace)
{
    for (int i = 0; i < trace->kept_count && !trace->broken; i++) {
        tell(trace, &trace->kept[i].span);
    }
    trace->kept_count = 0;
    write_buffer(trace);
    trace->flushed_ns = dk_now_ns();
}

static void keep(kept_span *kept, const dk_trace_span *span)
{
    kept->span = *span;
    const char **const texts[TEXTS] = {&kept->span.lane,   &kept->span.name,
                                       &kept->span.group,  &kept->span.operation,
                                       &kept->span.detail, &kept->span.waits_for};
    for (int i = 0; i < TEXTS; i++) {
        if (*texts[i] != NULL) {
            copy_text(kept->texts[i], *texts[i]);
            *texts[i] = kept->texts[i];
        }
    }
}

void dk_trace_add(dk_trace *trace, const dk_trace_span *span)
{
    if (trace == NULL) {
        return;
    }
    pthread_mutex_lock(&trace->lock);
    if (!trace->broken) {
        keep(&trace->kept[trace->kept_count++], span);
        if (trace->kept_count == MOST_KEPT || dk_now_ns() - trace->flushed_ns > FLUSH_NS) {
            flush(trace);
        }
    }
    pthread_mutex_unlock(&trace->lock);
}

/* The folder that path is in; owned. */
static char *folder_of(const char *path)
{
    const char *leaf = dk_path_name(path);
    return leaf == path ? dk_strdup(".") : dk_strndup(path, (size_t)(leaf - path));
}

dk_status dk_trace_path_check(const char *path, dk_error *err)
{
    struct stat info;
    static const char accepted[] = "accepted is the path of a file, such as trace.json";
    if (path[0] == '\0' || strcmp(path, "-") == 0) {
        return dk_fail(err, DK_INVALID, "trace_path is '%s', which names no file, %s", path,
                       accepted);
    }
    bool exists = stat(path, &info) == 0;
    if (*dk_path_name(path) == '\0' || (exists && S_ISDIR(info.st_mode))) {
        return dk_fail(err, DK_INVALID, "trace_path is '%s', which is a folder, %s", path,
                       accepted);
    }
    if (exists && !S_ISREG(info.st_mode)) {
        return dk_fail(err, DK_INVALID, "trace_path is '%s', which is no ordinary file, %s",
                       path, accepted);
    }
    char *folder = folder_of(path);
    int failed = access(exists ? path : folder, exists ? W_OK : W_OK | X_OK);
    int why = errno;
    dk_free(folder);
    return failed != 0 ? dk_fail(err, why == ENOENT ? DK_NOT_FOUND : DK_IO,
                                 "trace_path is '%s', which cannot be written: %s, %s", path,
                                 strerror(why), accepted)
                       : DK_OK;
}

char *dk_trace_path_of_rank(const char *path, int rank)
{
    dk_string made = DK_STRING_EMPTY;
    const char *leaf = dk_path_name(path);
    const char *dot = strrchr(leaf, '.');
    dot = dot != NULL && dot != leaf ? dot : path + strlen(path);
    dk_string_append(&made, path, (size_t)(dot - path));
    dk_string_printf(&made, "-%d%s", rank, dot);
    return dk_string_take(&made);
}

dk_status dk_trace_open(dk_trace **out, const dk_trace_options *options, dk_error *err)
{
    DK_TRY(dk_trace_path_check(options->path, err));
    int fd = open(options->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        return dk_fail(err, DK_IO, "trace_path is '%s', which cannot be written: %s",
                       options->path, strerror(errno));
    }
    dk_trace *trace = dk_alloc(sizeof *trace);
    pthread_mutex_init(&trace->lock, NULL);
    trace->log = options->log;
    trace->path = dk_strdup(options->path);
    trace->fd = fd;
    trace->rank = options->rank;
    trace->most_bytes = options->most_bytes > 0 ? options->most_bytes : MOST_BYTES;
    trace->first = true;
    append_metadata(trace, "process_name", 0, options->process, 0);
    append_metadata(trace, "process_sort_index", 0, NULL, options->rank);
    static const char *const lanes[] = {DK_TRACE_STAGES, DK_TRACE_COMPUTE, DK_TRACE_TRANSFER,
                                        DK_TRACE_COMMUNICATION};
    for (size_t i = 0; i < sizeof lanes / sizeof *lanes; i++) {
        lane_of(trace, lanes[i]);
    }
    flush(trace);
    *out = trace;
    return DK_OK;
}

void dk_trace_close(dk_trace **trace)
{
    dk_trace *t = *trace;
    if (t != NULL) {
        flush(t);
        t->used = (size_t)snprintf(t->buffer, sizeof t->buffer, "\n]\n");
        write_buffer(t);
        if (t->left_out > 0) {
            dk_log_warn(t->log, "%s: %llu spans were left out: it has %llu MB", t->path,
                        (unsigned long long)t->left_out,
                        (unsigned long long)(t->most_bytes / 1000000));
        }
        close(t->fd);
        pthread_mutex_destroy(&t->lock);
        dk_free(t->path);
        dk_free(t);
        *trace = NULL;
    }
}
