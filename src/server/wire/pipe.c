/* Messages through a stream socket. */
#include "server/wire/pipe.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"

enum { MAGIC = 0x314d4b44, READ_BYTES = 256 * 1024, MAX_FDS = 8 };

typedef struct prefix {
    uint32_t magic, header_bytes, blob_count, zero;
} prefix;

/* Bytes on their way out; fd goes with the first of them. */
typedef struct segment {
    char *data;
    size_t size, sent;
    int fd;
    struct segment *next;
} segment;

struct dk_pipe {
    int fd;
    bool blocking;
    pthread_mutex_t sending;
    segment *first, *last;
    char *input; /* [input_capacity], input_size of it used */
    size_t input_size, input_capacity;
    int fds[MAX_FDS], fd_count; /* that came, in order */
};

dk_pipe *dk_pipe_create(int fd, bool blocking)
{
    dk_pipe *pipe = dk_alloc(sizeof *pipe);
    pipe->fd = fd;
    pipe->blocking = blocking;
    pthread_mutex_init(&pipe->sending, NULL);
    return pipe;
}

static void drop_segment(dk_pipe *pipe)
{
    segment *s = pipe->first;
    pipe->first = s->next;
    if (pipe->first == NULL) {
        pipe->last = NULL;
    }
    if (s->fd >= 0) {
        close(s->fd);
    }
    dk_free(s->data);
    dk_free(s);
}

void dk_pipe_destroy(dk_pipe **pipe)
{
    if (*pipe != NULL) {
        dk_pipe *p = *pipe;
        while (p->first != NULL) {
            drop_segment(p);
        }
        for (int i = 0; i < p->fd_count; i++) {
            close(p->fds[i]);
        }
        close(p->fd);
        pthread_mutex_destroy(&p->sending);
        dk_free(p->input);
        dk_free(p);
        *pipe = NULL;
    }
}

int dk_pipe_fd(const dk_pipe *pipe)
{
    return pipe->fd;
}

bool dk_pipe_wants_write(const dk_pipe *pipe)
{
    return pipe->first != NULL;
}

static void append(dk_pipe *pipe, char *data, size_t size, int fd)
{
    segment *s = dk_alloc(sizeof *s);
    *s = (segment){.data = data, .size = size, .fd = fd};
    if (pipe->last != NULL) {
        pipe->last->next = s;
    } else {
        pipe->first = s;
    }
    pipe->last = s;
}

/* One sendmsg of a segment; the descriptor goes with its first byte. */
static ssize_t send_some(const dk_pipe *pipe, segment *s)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = s->data + s->sent, .iov_len = s->size - s->sent};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (s->fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                              .cmsg_type = SCM_RIGHTS,
                              .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(c), &s->fd, sizeof(int));
    }
    ssize_t sent =
        sendmsg(pipe->fd, &message, MSG_NOSIGNAL | (pipe->blocking ? 0 : MSG_DONTWAIT));
    if (sent > 0 && s->fd >= 0) {
        close(s->fd);
        s->fd = -1;
    }
    return sent;
}

dk_status dk_pipe_flush(dk_pipe *pipe, dk_error *err)
{
    while (pipe->first != NULL) {
        segment *s = pipe->first;
        ssize_t sent = send_some(pipe, s);
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (!pipe->blocking) {
                return DK_OK;
            }
            struct pollfd wait = {.fd = pipe->fd, .events = POLLOUT};
            poll(&wait, 1, -1);
        } else if (sent < 0 && errno != EINTR) {
            return dk_fail(err, DK_IO, "the other process is gone: %s", strerror(errno));
        } else if (sent >= 0) {
            s->sent += (size_t)sent;
            if (s->sent == s->size) {
                drop_segment(pipe);
            }
        }
    }
    return DK_OK;
}

dk_status dk_pipe_send(dk_pipe *pipe, dk_message *message, dk_error *err)
{
    char *text;
    size_t size;
    if (message->fd >= 0) {
        json_object_set_new(message->header, "with_fd", json_true());
    }
    DK_TRY(dk_message_encode(message, &text, &size, err));
    prefix head = {.magic = MAGIC,
                   .header_bytes = (uint32_t)size,
                   .blob_count = (uint32_t)message->blob_count};
    char *start = dk_alloc(sizeof head + size);
    memcpy(start, &head, sizeof head);
    memcpy(start + sizeof head, text, size);
    dk_free(text);
    pthread_mutex_lock(&pipe->sending);
    append(pipe, start, sizeof head + size, message->fd);
    message->fd = -1;
    for (int i = 0; i < message->blob_count; i++) {
        if (message->blobs[i].size > 0) {
            append(pipe, message->blobs[i].data, message->blobs[i].size, -1);
            message->blobs[i].data = NULL;
        }
    }
    dk_status status = dk_pipe_flush(pipe, err);
    pthread_mutex_unlock(&pipe->sending);
    return status;
}

static void keep_descriptors(dk_pipe *pipe, struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (pipe->fd_count < MAX_FDS) {
                pipe->fds[pipe->fd_count++] = fd;
            } else {
                close(fd);
            }
        }
    }
}

/* Reads once. *closed: the other end said that nothing more comes. */
static dk_status read_some(dk_pipe *pipe, bool *nothing, dk_error *err)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
    } control = {0};
    if (pipe->input_capacity - pipe->input_size < READ_BYTES) {
        pipe->input_capacity = pipe->input_size + 2 * READ_BYTES;
        pipe->input = dk_realloc(pipe->input, pipe->input_capacity);
    }
    struct iovec part = {.iov_base = pipe->input + pipe->input_size, .iov_len = READ_BYTES};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(pipe->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    *nothing = got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
    if (*nothing) {
        return DK_OK;
    }
    if (got <= 0) {
        return dk_fail(err, DK_IO, "the other process is gone");
    }
    keep_descriptors(pipe, &message);
    pipe->input_size += (size_t)got;
    return DK_OK;
}

/* A message at the start of the input, when all of it is there. */
static dk_status take_message(dk_pipe *pipe, dk_message *out, bool *received, dk_error *err)
{
    prefix head;
    uint64_t sizes[DK_MESSAGE_MAX_BLOBS];
    int count;
    *received = false;
    if (pipe->input_size < sizeof head) {
        return DK_OK;
    }
    memcpy(&head, pipe->input, sizeof head);
    if (head.magic != MAGIC || head.header_bytes > DK_MESSAGE_HEADER_BYTES) {
        return dk_fail(err, DK_FORMAT, "the other process sent what is no message");
    }
    size_t need = sizeof head + head.header_bytes;
    if (pipe->input_size < need) {
        return DK_OK;
    }
    dk_message message;
    DK_TRY(dk_message_decode(&message, pipe->input + sizeof head, head.header_bytes, sizes,
                             &count, err));
    if ((uint32_t)count != head.blob_count || head.zero != 0) {
        dk_message_release(&message);
        return dk_fail(err, DK_FORMAT, "the other process sent a message that is not whole");
    }
    for (int i = 0; i < count; i++) {
        need += sizes[i];
    }
    if (pipe->input_size < need) {
        dk_message_release(&message);
        return DK_OK;
    }
    char *at = pipe->input + sizeof head + head.header_bytes;
    for (int i = 0; i < count; i++) {
        void *copy = dk_alloc(sizes[i] + 1);
        memcpy(copy, at, sizes[i]);
        dk_message_add_blob(&message, copy, sizes[i]);
        at += sizes[i];
    }
    if (json_is_true(json_object_get(message.header, "with_fd")) && pipe->fd_count > 0) {
        message.fd = pipe->fds[0];
        pipe->fd_count--;
        memmove(pipe->fds, pipe->fds + 1, (size_t)pipe->fd_count * sizeof *pipe->fds);
    }
    pipe->input_size -= need;
    memmove(pipe->input, pipe->input + need, pipe->input_size);
    *out = message;
    *received = true;
    return DK_OK;
}

dk_status dk_pipe_receive(dk_pipe *pipe, dk_message *out, bool *received, dk_error *err)
{
    bool nothing = false;
    DK_TRY(take_message(pipe, out, received, err));
    while (!*received && !nothing) {
        DK_TRY(read_some(pipe, &nothing, err));
        DK_TRY(take_message(pipe, out, received, err));
    }
    return DK_OK;
}
