/* The inside of a rendezvous, for its own files. */
#ifndef DK_COMM_MEETING_H
#define DK_COMM_MEETING_H

#include <pthread.h>
#include <stdatomic.h>

#include "comm/meeting_frame.h"
#include "comm/rendezvous.h"

enum {
    DK_MEETING_VERSION = 1,
    DK_MEETING_MOST_RANKS = 1024,
    DK_MEETING_KEY_BYTES = 64, /* hexadecimal digits */
    DK_MEETING_HELLO_BYTES = 8 + 3 * 4 + DK_MEETING_KEY_BYTES,
    DK_MEETING_SEND_MS = 1000, /* for a few bytes to one rank */
};

/* The first bytes of a rank: magic [8] | version | rank | ranks | SHA-256 of the key. */
typedef struct dk_meeting_hello {
    uint32_t version, rank, ranks;
    unsigned char key[DK_MEETING_KEY_BYTES];
} dk_meeting_hello;

/* The hello of this rank, as it travels. */
DK_MUST_USE dk_status dk_meeting_hello_write(unsigned char out[DK_MEETING_HELLO_BYTES],
                                             const dk_rendezvous_options *options,
                                             dk_error *err);
/* Whether the first `got` bytes of one may become a hello. */
bool dk_meeting_hello_begins(const unsigned char *bytes, size_t got);
dk_meeting_hello dk_meeting_hello_read(const unsigned char bytes[DK_MEETING_HELLO_BYTES]);

struct dk_rendezvous {
    int rank, ranks;
    dk_meeting_link *links; /* [ranks]; rank 0: to each of the others; others: [0] alone */
    pthread_mutex_t sending;
    /* The watch: */
    dk_rendezvous_lost_fn *lost;
    void *context;
    pthread_t thread;
    bool is_watched;
    int stop_fd; /* eventfd; -1: none */
};

/* Rank 0 waits for all others; a rank goes to rank 0. On success r->links are open. */
DK_MUST_USE dk_status dk_meeting_host(dk_rendezvous *r, const dk_rendezvous_options *options,
                                      dk_error *err);
DK_MUST_USE dk_status dk_meeting_visit(dk_rendezvous *r, const dk_rendezvous_options *options,
                                       dk_error *err);

/* Rank 0 tells all but `rank` (and but itself) that it is gone. */
void dk_meeting_tell_gone(dk_rendezvous *r, int rank, const char *why);

/* Ends the thread of the watch, if there is one. */
void dk_rendezvous_end_watch(dk_rendezvous *r);

#endif
