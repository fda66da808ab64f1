/* Where ranks meet: rank 0 listens at an address, the others come to it, and everybody gets
   what everybody brought. The connections stay open for as long as the group lives: when one
   ends, that rank is gone, which all others are told at once.

   Addresses: "host:port" (TCP, several hosts), or "unix:@name" (an abstract socket of this
   host, for processes of one user). A meeting has a key: who does not know it is sent away. */
#ifndef DK_COMM_RENDEZVOUS_H
#define DK_COMM_RENDEZVOUS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/log.h"

typedef struct dk_rendezvous dk_rendezvous;

typedef struct dk_rendezvous_options {
    const char *address;
    const char *key; /* NULL: "" */
    int rank, ranks;
    double deadline_ms; /* in dk_now_ms's time */
} dk_rendezvous_options;

enum { DK_RENDEZVOUS_MOST_BYTES = 1 << 16 };

/* Returns when all ranks are there. DK_TIMEOUT names those that are not; DK_INVALID: another
   number of ranks, another key, a rank that is there twice. Owned. */
DK_MUST_USE dk_status dk_rendezvous_open(dk_rendezvous **out,
                                         const dk_rendezvous_options *options, dk_error *err);
/* all[ranks][bytes] = what every rank brought; up to DK_RENDEZVOUS_MOST_BYTES. Collective. */
DK_MUST_USE dk_status dk_rendezvous_exchange(dk_rendezvous *r, void *all, const void *mine,
                                             size_t bytes, double deadline_ms, dk_error *err);
/* The name of the network interface, of several, through which ranks of other hosts are
   connected with this one: "eth0". false: there is none. */
bool dk_rendezvous_interface(const dk_rendezvous *r, char *out, size_t bytes);
/* Called once, in a thread of the rendezvous, when a rank is gone or has left with a reason. */
typedef void dk_rendezvous_lost_fn(void *context, int rank, const char *why);
/* From here on no exchange is possible. */
DK_MUST_USE dk_status dk_rendezvous_watch(dk_rendezvous *r, dk_rendezvous_lost_fn *lost,
                                          void *context, dk_error *err);
/* From any thread: all others are told that this rank gives up. */
void dk_rendezvous_abandon(dk_rendezvous *r, const char *why);
/* Leaves; a rank that leaves quietly is no loss to those that leave too. */
void dk_rendezvous_close(dk_rendezvous **r);

#endif
