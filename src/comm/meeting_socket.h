/* Sockets of a meeting: from "host:port", "[::1]:port" or "unix:@name" to a connection. */
#ifndef DK_COMM_MEETING_SOCKET_H
#define DK_COMM_MEETING_SOCKET_H

#include <stdbool.h>

#include "base/error.h"

/* Why one attempt to connect had no success: DK_NETWORK may be tried again. DK_INVALID: no such
   address; DK_DENIED: another user listens there. *out: a non-blocking socket, owned. */
DK_MUST_USE dk_status dk_meeting_connect(int *out, const char *address, double deadline_ms,
                                         dk_error *err);
/* DK_INVALID: no such address, or not one of this host; DK_NETWORK: it is taken, also after a
   short wait for the one before to end. *out: a non-blocking socket, owned. */
DK_MUST_USE dk_status dk_meeting_listen(int *out, const char *address, double deadline_ms,
                                        dk_error *err);
/* The next connection, ready for use; -1: none waits, or it is another user's. */
int dk_meeting_accept(int listener);

/* Milliseconds from now to a time, for poll: rounded up, within [0, most]. */
int dk_meeting_left_ms(double deadline_ms, int most);

#endif
