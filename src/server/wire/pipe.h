/* A worker's socket: messages with lengths in front, and a file descriptor with any of them.

     magic 'DKM1' | header bytes | blob count | 0     four 32-bit numbers of the host
     header | blobs                                   sizes of the blobs stand in the header

   The scheduler's end never blocks: what does not fit into the socket waits in the pipe. The
   worker's end blocks in dk_pipe_send. */
#ifndef DK_SERVER_WIRE_PIPE_H
#define DK_SERVER_WIRE_PIPE_H

#include <stdbool.h>

#include "server/wire/message.h"

typedef struct dk_pipe dk_pipe;

/* fd: a stream socket, taken. Owned. */
dk_pipe *dk_pipe_create(int fd, bool blocking);
void dk_pipe_destroy(dk_pipe **pipe);
int dk_pipe_fd(const dk_pipe *pipe);

/* Sends (or queues) a message; message->fd is given away and closed here when sent. DK_IO: the
   other end is gone. The blocking form may be called from several threads. */
DK_MUST_USE dk_status dk_pipe_send(dk_pipe *pipe, dk_message *message, dk_error *err);
/* Whether bytes wait for the socket to take them, and the attempt to write them. */
bool dk_pipe_wants_write(const dk_pipe *pipe);
DK_MUST_USE dk_status dk_pipe_flush(dk_pipe *pipe, dk_error *err);

/* Reads what is there; *received tells whether a whole message came out (call again until none
   does). DK_IO: the other end is gone; DK_FORMAT: it sent what is no message. */
DK_MUST_USE dk_status dk_pipe_receive(dk_pipe *pipe, dk_message *out, bool *received,
                                      dk_error *err);

#endif
