/* Server-sent events. A stream is known to its producer, who sends and ends it, and to
   libmicrohttpd, whose thread takes bytes from it; the one who is last frees it. While nothing
   waits the connection is suspended and costs nothing. */
#include "server/http/events.h"

#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/string.h"
#include "server/http/internal.h"

enum {
    WAITING_BYTES = 256 * 1024,  /* behind the event that is on its way; more ends the stream */
    DROPPABLE_BYTES = 64 * 1024, /* more than this: droppable events are left out */
    BLOCK_BYTES = 16 * 1024,     /* that libmicrohttpd asks for at a time */
};

typedef struct event {
    struct event *next;
    size_t size;
    char bytes[];
} event;

struct dk_http_stream {
    dk_http_stream *previous, *next; /* in the watch's list, under the watch's lock */
    dk_http_watch *watch;            /* NULL once libmicrohttpd has let go */
    dk_http_mover *mover;
    dk_http_exchange *exchange; /* the mover's; only for its count of bytes */
    pthread_mutex_t lock;       /* of what follows */
    struct MHD_Connection *mhd; /* set while the connection is suspended */
    event *first, *last;
    size_t waiting, offset; /* bytes in the queue; of first, already taken */
    double last_ms;         /* when something was put into the queue */
    bool ended;             /* by the producer: what waits is flushed */
    bool broken;            /* too much waited, or the server stops */
    bool gone;              /* libmicrohttpd has let go */
    bool held;              /* by the producer */
};

static void stream_free(dk_http_stream *stream)
{
    while (stream->first != NULL) {
        event *next = stream->first->next;
        dk_free(stream->first);
        stream->first = next;
    }
    pthread_mutex_destroy(&stream->lock);
    dk_free(stream);
}

/* Lets the mover look at the stream again. The lock is held. */
static void resume(dk_http_stream *stream)
{
    if (stream->mhd != NULL) {
        struct MHD_Connection *mhd = stream->mhd;
        stream->mhd = NULL;
        dk_http_mover_resume(stream->mover, mhd);
    }
}

/* Takes the event. The lock is held. */
static void push(dk_http_stream *stream, event *added)
{
    added->next = NULL;
    if (stream->last != NULL) {
        stream->last->next = added;
    } else {
        stream->first = added;
    }
    stream->last = added;
    stream->waiting += added->size;
    stream->last_ms = dk_now_ms();
    resume(stream);
}

static event *event_create(const char *bytes, size_t size)
{
    event *made = dk_alloc(sizeof *made + size);
    made->size = size;
    memcpy(made->bytes, bytes, size);
    return made;
}

/* libmicrohttpd's reader: what waits, at most `max` bytes. */
static ssize_t take(void *context, uint64_t position, char *bytes, size_t max)
{
    (void)position;
    dk_http_stream *stream = context;
    size_t taken = 0;
    ssize_t result = 0;
    pthread_mutex_lock(&stream->lock);
    while (stream->first != NULL && taken < max && !stream->broken) {
        event *head = stream->first;
        size_t part = head->size - stream->offset;
        part = part < max - taken ? part : max - taken;
        memcpy(bytes + taken, head->bytes + stream->offset, part);
        taken += part;
        stream->offset += part;
        if (stream->offset == head->size) {
            stream->first = head->next;
            stream->last = stream->first != NULL ? stream->last : NULL;
            stream->waiting -= head->size;
            stream->offset = 0;
            dk_free(head);
        }
    }
    if (taken > 0) {
        stream->exchange->bytes_out += taken;
        result = (ssize_t)taken;
    } else if (stream->broken) {
        result = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (stream->ended) {
        result = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        stream->mhd = stream->exchange->mhd;
        MHD_suspend_connection(stream->mhd);
    }
    pthread_mutex_unlock(&stream->lock);
    return result;
}

static void unlink_stream(dk_http_stream *stream)
{
    dk_http_watch *watch = stream->watch;
    pthread_mutex_lock(&watch->lock);
    if (stream->previous != NULL) {
        stream->previous->next = stream->next;
    } else {
        watch->streams = stream->next;
    }
    if (stream->next != NULL) {
        stream->next->previous = stream->previous;
    }
    pthread_mutex_unlock(&watch->lock);
}

/* libmicrohttpd has sent everything, or the reader is gone. */
static void let_go(void *context)
{
    dk_http_stream *stream = context;
    unlink_stream(stream);
    pthread_mutex_lock(&stream->lock);
    stream->gone = true;
    stream->mhd = NULL;
    bool held = stream->held;
    pthread_mutex_unlock(&stream->lock);
    if (!held) {
        stream_free(stream);
    }
}

dk_http_stream *dk_http_reply_events(dk_http_exchange *exchange)
{
    dk_http_stream *stream = dk_alloc(sizeof *stream);
    stream->watch = &exchange->server->watch;
    stream->mover = &exchange->server->mover;
    stream->exchange = exchange;
    stream->held = true;
    stream->last_ms = dk_now_ms();
    pthread_mutex_init(&stream->lock, NULL);
    if (dk_http_is_forgotten(exchange)) {
        stream->gone = true;
        dk_http_exchange_unref(exchange);
        return stream;
    }
    pthread_mutex_lock(&stream->watch->lock);
    stream->next = stream->watch->streams;
    if (stream->next != NULL) {
        stream->next->previous = stream;
    }
    stream->watch->streams = stream;
    pthread_mutex_unlock(&stream->watch->lock);
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, take, stream, let_go);
    dk_http_add_header(exchange, "Content-Type", "text/event-stream; charset=utf-8");
    dk_http_add_header(exchange, "X-Accel-Buffering", "no"); /* proxies: pass it on at once */
    dk_http_finish(exchange, 200, response);
    return stream;
}

/* "data: " before each line: LF, CRLF and CR end one. */
static void format_data(dk_string *out, const char *data)
{
    for (;;) {
        size_t length = strcspn(data, "\r\n");
        dk_string_puts(out, "data: ");
        dk_string_append(out, data, length);
        dk_string_putc(out, '\n');
        data += length;
        if (*data == '\0') {
            break;
        }
        data += data[0] == '\r' && data[1] == '\n' ? 2 : 1;
    }
    dk_string_putc(out, '\n');
}

bool dk_http_stream_send(dk_http_stream *stream, const char *name, const char *data,
                         bool droppable)
{
    dk_string text = DK_STRING_EMPTY;
    if (name != NULL) {
        dk_string_printf(&text, "event: %.*s\n", (int)strcspn(name, "\r\n"), name);
    }
    format_data(&text, data);
    pthread_mutex_lock(&stream->lock);
    bool open = !stream->gone && !stream->broken && !stream->ended;
    size_t behind = stream->first != NULL ? stream->waiting - stream->first->size : 0;
    bool left_out = droppable && stream->waiting - stream->offset > DROPPABLE_BYTES;
    if (open && !left_out && behind > WAITING_BYTES) {
        stream->broken = true;
        resume(stream);
        open = false;
    } else if (open && !left_out) {
        push(stream, event_create(text.data, text.length));
    }
    pthread_mutex_unlock(&stream->lock);
    dk_string_release(&text);
    return open;
}

void dk_http_stream_end(dk_http_stream **held)
{
    dk_http_stream *stream = *held;
    if (stream == NULL) {
        return;
    }
    *held = NULL;
    pthread_mutex_lock(&stream->lock);
    stream->held = false;
    stream->ended = true;
    bool gone = stream->gone;
    if (!gone) {
        resume(stream);
    }
    pthread_mutex_unlock(&stream->lock);
    if (gone) {
        stream_free(stream);
    }
}

void dk_http_streams_comment(dk_http_stream *streams, double now_ms, int comment_ms)
{
    for (dk_http_stream *stream = streams; stream != NULL; stream = stream->next) {
        pthread_mutex_lock(&stream->lock);
        bool silent = stream->first == NULL && now_ms - stream->last_ms >= comment_ms;
        if (silent && !stream->ended && !stream->broken) {
            push(stream, event_create(":\n\n", 3));
        }
        pthread_mutex_unlock(&stream->lock);
    }
}

void dk_http_streams_end(dk_http_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    for (dk_http_stream *stream = watch->streams; stream != NULL; stream = stream->next) {
        pthread_mutex_lock(&stream->lock);
        stream->ended = true;
        resume(stream);
        pthread_mutex_unlock(&stream->lock);
    }
    pthread_mutex_unlock(&watch->lock);
}
