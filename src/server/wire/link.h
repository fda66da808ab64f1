/* ZeroMQ between server (or SDK) and scheduler: a DEALER connects to a ROUTER. ipc:// inside a
   folder of mode 0700; tcp:// only with CURVE keys on both sides. One thread uses a link. */
#ifndef DK_SERVER_WIRE_LINK_H
#define DK_SERVER_WIRE_LINK_H

#include <stdbool.h>

#include "server/wire/message.h"

typedef struct dk_link dk_link;

enum { DK_LINK_PEER_BYTES = 32 }; /* longest name of a peer */

typedef struct dk_link_peer {
    unsigned char name[DK_LINK_PEER_BYTES];
    size_t size; /* 0: no peer */
} dk_link_peer;

/* CURVE: 40 characters of Z85 each, as `zmq_curve_keypair` gives them. */
typedef struct dk_link_keys {
    const char *secret;        /* own; NULL: no CURVE */
    const char *server_public; /* of the listener, for those who connect */
    const char *allowed;       /* for the listener: public keys that may come in, by spaces */
} dk_link_keys;

/* Reads "secret=…", "server=…", "allowed=…" lines of a file that only its owner may read.
   Texts are owned by *text (dk_free). */
DK_MUST_USE dk_status dk_link_keys_read(dk_link_keys *out, char **text, const char *path,
                                        dk_error *err);

/* Whether an endpoint can be used at all: the rules above. */
DK_MUST_USE dk_status dk_link_check(const char *endpoint, const dk_link_keys *keys,
                                    dk_error *err);

/* DK_INVALID: an endpoint that is neither ipc:// nor tcp://, tcp:// without keys, an ipc folder
   that others may enter. Owned. */
DK_MUST_USE dk_status dk_link_listen(dk_link **out, const char *endpoint,
                                     const dk_link_keys *keys, dk_error *err);
DK_MUST_USE dk_status dk_link_connect(dk_link **out, const char *endpoint,
                                      const dk_link_keys *keys, dk_error *err);
void dk_link_close(dk_link **link); /* what is not yet sent is dropped */

/* The same, but what is not yet sent has up to `ms`. */
void dk_link_finish(dk_link **link, int ms);

/* Of a listener, where it was asked for any port ("tcp://10.0.0.1:*"): the one it has. */
int dk_link_port(const dk_link *link);

void *dk_link_socket(const dk_link *link); /* for zmq_poll; borrowed */

/* Sends; a listener names the peer, others pass NULL. A peer that is gone is no failure: the
   message is dropped. message->fd must be -1. */
DK_MUST_USE dk_status dk_link_send(dk_link *link, const dk_link_peer *peer,
                                   const dk_message *message, dk_error *err);

/* The next message, if there is one. What is no message is dropped and reported in *err with
   DK_FORMAT; the link goes on. peer may be NULL. */
DK_MUST_USE dk_status dk_link_receive(dk_link *link, dk_link_peer *peer, dk_message *out,
                                      bool *received, dk_error *err);

#endif
