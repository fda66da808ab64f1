/* Fuzz target: messages between processes. The first byte cuts the rest into pieces; they go
   through a socket into a pipe, as a broken worker would send them. The same bytes are read as
   a bare header too. What was read is written again and must read the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "server/wire/pipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A header that was accepted has a type and sizes in their range. */
static void read_header(const uint8_t *data, size_t size)
{
    dk_message message;
    uint64_t sizes[DK_MESSAGE_MAX_BLOBS];
    int count = -1;
    if (dk_message_decode(&message, data, size, sizes, &count, NULL) != DK_OK) {
        return;
    }
    if (count < 0 || count > DK_MESSAGE_MAX_BLOBS ||
        json_object_get(message.header, "type") == NULL) {
        abort();
    }
    for (int i = 0; i < count; i++) {
        if (sizes[i] > DK_MESSAGE_BLOB_BYTES) {
            abort();
        }
    }
    dk_message_release(&message);
}

/* Sent through another pipe it arrives as it is. */
static void send_on(dk_message *message)
{
    int fds[2];
    bool received = false;
    dk_message back;
    json_t *before = json_deep_copy(message->header);
    size_t bytes = message->blob_count > 0 ? message->blobs[0].size : 0;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) {
        abort();
    }
    dk_pipe *from = dk_pipe_create(fds[0], false), *to = dk_pipe_create(fds[1], false);
    if (dk_pipe_send(from, message, NULL) == DK_OK) {
        if (dk_pipe_receive(to, &back, &received, NULL) != DK_OK || !received ||
            !json_equal(back.header, before) || back.blob_count != message->blob_count ||
            (back.blob_count > 0 && back.blobs[0].size != bytes)) {
            abort();
        }
        dk_message_release(&back);
    }
    dk_pipe_destroy(&from);
    dk_pipe_destroy(&to);
    json_decref(before);
}

static dk_status take(dk_pipe *pipe)
{
    bool received = true;
    dk_status status = DK_OK;
    while (status == DK_OK && received) {
        dk_message message;
        status = dk_pipe_receive(pipe, &message, &received, NULL);
        if (status == DK_OK && received) {
            send_on(&message);
            dk_message_release(&message);
        }
    }
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { MOST = 60000 }; /* what a socket takes at once */
    int fds[2];
    if (size < 2 || size > MOST) {
        return 0;
    }
    read_header(data + 1, size - 1);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) {
        abort();
    }
    dk_pipe *pipe = dk_pipe_create(fds[0], false);
    size_t piece = data[0] == 0 ? size : (size_t)data[0] * (size_t)data[0];
    dk_status status = DK_OK;
    for (size_t at = 1; at < size && status == DK_OK;) {
        size_t now = size - at < piece ? size - at : piece;
        ssize_t sent = write(fds[1], data + at, now);
        if (sent <= 0) {
            abort();
        }
        at += (size_t)sent;
        status = take(pipe);
    }
    close(fds[1]);
    if (status == DK_OK && take(pipe) != DK_IO) {
        abort();
    }
    dk_pipe_destroy(&pipe);
    return 0;
}
