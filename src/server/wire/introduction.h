/* How workers on other hosts reach their scheduler: where it listens, and CURVE keys that are
   made for one life of a server. It travels as lines of text, through the ranks' own meeting or
   communicator, and through a file that only its owner may read; never on a command line. */
#ifndef DK_SERVER_WIRE_INTRODUCTION_H
#define DK_SERVER_WIRE_INTRODUCTION_H

#include "base/string.h"
#include "server/wire/link.h"

enum {
    DK_INTRODUCTION_ENDPOINTS = 8,
    DK_INTRODUCTION_ENDPOINT_BYTES = 320,
    DK_INTRODUCTION_BYTES = 4096, /* of the text, at most */
    DK_INTRODUCTION_KEY_BYTES = 41,
};

typedef struct dk_introduction {
    /* "tcp://10.0.0.1:29502", one network of the scheduler's host each; the first that answers
       is right */
    char endpoints[DK_INTRODUCTION_ENDPOINTS][DK_INTRODUCTION_ENDPOINT_BYTES];
    int endpoint_count;
    char server[DK_INTRODUCTION_KEY_BYTES]; /* the scheduler's public key */
    char secret[DK_INTRODUCTION_KEY_BYTES]; /* of those who come to it */
    /* What only the scheduler's own file holds: its secret key, and who may come in. */
    char own[DK_INTRODUCTION_KEY_BYTES], allowed[DK_INTRODUCTION_KEY_BYTES];
} dk_introduction;

/* New keys, no endpoints. */
DK_MUST_USE dk_status dk_introduction_make(dk_introduction *out, dk_error *err);
void dk_introduction_add(dk_introduction *i, const char *endpoint);

/* The text; with_own: also what is the scheduler's alone. */
void dk_introduction_write(dk_string *out, const dk_introduction *i, bool with_own);
/* DK_FORMAT: no endpoint, or no keys. Lines that are not known are passed over. */
DK_MUST_USE dk_status dk_introduction_read(dk_introduction *out, const char *text,
                                           dk_error *err);

/* The scheduler's file, of mode 0600. *is_empty: nothing was written to it so far. */
DK_MUST_USE dk_status dk_introduction_load(dk_introduction *out, bool *is_empty,
                                           const char *path, dk_error *err);
DK_MUST_USE dk_status dk_introduction_save(const dk_introduction *i, const char *path,
                                           dk_error *err);

/* The first endpoint that somebody listens at, with the number of its host: a name may have
   several, of which ZeroMQ would take one unseen. Each is tried for a moment. DK_NETWORK: none.
 */
DK_MUST_USE dk_status dk_introduction_find(char endpoint[DK_INTRODUCTION_ENDPOINT_BYTES],
                                           const dk_introduction *i, dk_error *err);
/* "tcp://host:port", a host of colons in brackets. */
void dk_introduction_print(char endpoint[DK_INTRODUCTION_ENDPOINT_BYTES], const char *host,
                           const char *port);

#endif
