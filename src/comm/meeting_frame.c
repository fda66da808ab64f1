/* Frames of a meeting. */
#include "comm/meeting_frame.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "comm/meeting_socket.h"

enum { LOOK_MS = 1000 };

void dk_put_u32(unsigned char *dst, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        dst[i] = (unsigned char)(value >> 8 * i);
    }
}

uint32_t dk_get_u32(const unsigned char *src)
{
    return (uint32_t)src[0] | (uint32_t)src[1] << 8 | (uint32_t)src[2] << 16 |
           (uint32_t)src[3] << 24;
}

void dk_meeting_link_close(dk_meeting_link *link)
{
    if (link->fd >= 0) {
        close(link->fd);
    }
    dk_free(link->body);
    *link = (dk_meeting_link){.fd = -1};
}

/* The head is there: what follows it? */
static bool begin_body(dk_meeting_link *link, size_t most_bytes)
{
    uint32_t kind = dk_get_u32(link->head);
    link->bytes = dk_get_u32(link->head + 4);
    if (kind == DK_FRAME_NONE || kind >= DK_FRAME_KINDS || link->bytes > most_bytes) {
        return false;
    }
    link->kind = (dk_frame_kind)kind;
    link->body = dk_alloc(link->bytes + 1);
    return true;
}

static void forget_frame(dk_meeting_link *link)
{
    dk_free(link->body);
    link->body = NULL;
    link->kind = DK_FRAME_NONE;
    link->got = link->bytes = 0;
}

dk_link_step dk_meeting_receive(dk_meeting_link *link, size_t most_bytes)
{
    if (link->body != NULL && link->got == DK_FRAME_HEAD_BYTES + link->bytes) {
        forget_frame(link);
    }
    for (;;) {
        bool in_head = link->got < DK_FRAME_HEAD_BYTES;
        unsigned char *dst =
            in_head ? link->head + link->got : link->body + link->got - DK_FRAME_HEAD_BYTES;
        size_t wanted = DK_FRAME_HEAD_BYTES + (in_head ? 0 : link->bytes) - link->got;
        ssize_t count = wanted > 0 ? recv(link->fd, dst, wanted, MSG_DONTWAIT) : 0;
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return DK_LINK_WAITS;
        }
        if (count < 0 || (count == 0 && wanted > 0)) {
            link->went_silent = count < 0 && errno != ECONNRESET && errno != EPIPE;
            return DK_LINK_ENDED;
        }
        link->got += (size_t)count;
        if (link->got < DK_FRAME_HEAD_BYTES) {
            continue;
        }
        if (link->body == NULL && !begin_body(link, most_bytes)) {
            return DK_LINK_MALFORMED;
        }
        if (link->got == DK_FRAME_HEAD_BYTES + link->bytes) {
            return DK_LINK_FRAME;
        }
    }
}

const char *dk_meeting_end_text(const dk_meeting_link *link)
{
    return link->went_silent ? "nothing comes through to it any more" : "its connection ended";
}

dk_link_step dk_meeting_await(dk_meeting_link *link, size_t most_bytes, double deadline_ms)
{
    for (;;) {
        dk_link_step step = dk_meeting_receive(link, most_bytes);
        int left = dk_meeting_left_ms(deadline_ms, LOOK_MS);
        if (step != DK_LINK_WAITS || left == 0) {
            return step;
        }
        struct pollfd wait = {.fd = link->fd, .events = POLLIN};
        poll(&wait, 1, left);
    }
}

static bool send_all(int fd, const unsigned char *bytes, size_t size, int more,
                     double deadline_ms)
{
    while (size > 0) {
        ssize_t count = send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT | more);
        if (count > 0) {
            bytes += count;
            size -= (size_t)count;
            continue;
        }
        int left = dk_meeting_left_ms(deadline_ms, LOOK_MS);
        if (errno == EINTR) {
            continue;
        }
        if ((errno != EAGAIN && errno != EWOULDBLOCK) || left == 0) {
            return false;
        }
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        poll(&wait, 1, left);
    }
    return true;
}

bool dk_meeting_send_bytes(const dk_meeting_link *link, const void *bytes, size_t size,
                           double deadline_ms)
{
    return send_all(link->fd, bytes, size, 0, deadline_ms);
}

bool dk_meeting_send(const dk_meeting_link *link, dk_frame_kind kind, const void *first,
                     size_t first_bytes, const void *second, size_t second_bytes,
                     double deadline_ms)
{
    unsigned char head[DK_FRAME_HEAD_BYTES];
    dk_put_u32(head, (uint32_t)kind);
    dk_put_u32(head + 4, (uint32_t)(first_bytes + second_bytes));
    bool more = first_bytes + second_bytes > 0;
    return link->fd >= 0 &&
           send_all(link->fd, head, sizeof head, more ? MSG_MORE : 0, deadline_ms) &&
           send_all(link->fd, first, first_bytes, second_bytes > 0 ? MSG_MORE : 0,
                    deadline_ms) &&
           send_all(link->fd, second, second_bytes, 0, deadline_ms);
}

bool dk_meeting_send_text(const dk_meeting_link *link, dk_frame_kind kind, uint32_t number,
                          const char *text)
{
    unsigned char first[4];
    size_t bytes = strlen(text);
    dk_put_u32(first, number);
    return dk_meeting_send(link, kind, first, sizeof first, text,
                           bytes < DK_FRAME_TEXT_BYTES ? bytes : DK_FRAME_TEXT_BYTES, 0);
}

bool dk_meeting_read_text(const dk_meeting_link *link, uint32_t *number, const char **text)
{
    if (link->bytes < 4) {
        return false;
    }
    *number = dk_get_u32(link->body);
    *text = (const char *)link->body + 4;
    return true;
}
