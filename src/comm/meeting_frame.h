/* What travels between rank 0 and the others: frames of a kind, a size and a body, numbers in
   little-endian order. */
#ifndef DK_COMM_MEETING_FRAME_H
#define DK_COMM_MEETING_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef enum dk_frame_kind {
    DK_FRAME_NONE,
    DK_FRAME_WELCOME, /* from rank 0: all are there */
    DK_FRAME_REFUSED, /* from rank 0: a dk_status and why */
    DK_FRAME_DATA,    /* of an exchange */
    DK_FRAME_GONE,    /* from rank 0: a rank and why */
    DK_FRAME_GIVE_UP, /* to rank 0: why */
    DK_FRAME_LEAVE,   /* the end of the connection is no loss */
    DK_FRAME_KINDS
} dk_frame_kind;

enum { DK_FRAME_HEAD_BYTES = 8, DK_FRAME_TEXT_BYTES = 512 };

/* One end of a connection, and the frame that is arriving. */
typedef struct dk_meeting_link {
    int fd; /* owned; -1: none */
    unsigned char head[DK_FRAME_HEAD_BYTES];
    size_t got; /* bytes of head and body so far */
    dk_frame_kind kind;
    size_t bytes;        /* of the body */
    unsigned char *body; /* owned; [bytes], and a 0 behind */
    bool went_silent;    /* it ended because nothing came through any more */
} dk_meeting_link;

typedef enum dk_link_step {
    DK_LINK_WAITS,    /* nothing more is there */
    DK_LINK_FRAME,    /* kind, bytes and body are valid until the next call */
    DK_LINK_ENDED,    /* the other end is gone */
    DK_LINK_MALFORMED /* or it sends what is no frame */
} dk_link_step;

void dk_meeting_link_close(dk_meeting_link *link); /* also fine for {.fd = -1} */

/* Takes what has arrived, without waiting. Bodies above most_bytes are malformed. */
dk_link_step dk_meeting_receive(dk_meeting_link *link, size_t most_bytes);
/* The same, waiting for a frame until the deadline (DK_LINK_WAITS: it passed). */
dk_link_step dk_meeting_await(dk_meeting_link *link, size_t most_bytes, double deadline_ms);

/* Sends a frame of up to two pieces; false: the connection has ended or the deadline passed,
   and the connection is of no more use. */
bool dk_meeting_send(const dk_meeting_link *link, dk_frame_kind kind, const void *first,
                     size_t first_bytes, const void *second, size_t second_bytes,
                     double deadline_ms);
/* Bytes that are no frame: a hello. */
bool dk_meeting_send_bytes(const dk_meeting_link *link, const void *bytes, size_t size,
                           double deadline_ms);
/* A number and a text: DK_FRAME_REFUSED, DK_FRAME_GONE. Does not wait. */
bool dk_meeting_send_text(const dk_meeting_link *link, dk_frame_kind kind, uint32_t number,
                          const char *text);
/* Reads one; *text is borrowed from the link. False: it is none. */
bool dk_meeting_read_text(const dk_meeting_link *link, uint32_t *number, const char **text);

/* Why a connection has ended, in words. */
const char *dk_meeting_end_text(const dk_meeting_link *link);

void dk_put_u32(unsigned char *dst, uint32_t value);
uint32_t dk_get_u32(const unsigned char *src);

#endif
