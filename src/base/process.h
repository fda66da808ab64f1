/* Child processes that end with their parent. */
#ifndef DK_BASE_PROCESS_H
#define DK_BASE_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

enum { DK_PROCESS_FD = 3 }; /* where a child finds what it was given */

/* Starts argv[0] (a path) with argv, NULL-ended. The child gets standard input, output and
   error, `fd` as DK_PROCESS_FD (-1: nothing) and no other descriptor. own_group: signals of the
   terminal do not reach it. Any thread. */
DK_MUST_USE dk_status dk_process_start(pid_t *out, const char *const *argv, int fd,
                                       bool own_group, dk_error *err);

/* Ends it at once and waits for it; *pid becomes 0. 0 is fine. */
void dk_process_kill(pid_t *pid);

/* Asks it to end (SIGTERM), and ends it when it has not within grace_ms. 0 is fine. */
void dk_process_end(pid_t *pid, double grace_ms);

/* Whether it has ended; then it is reaped and *pid becomes 0. */
bool dk_process_has_ended(pid_t *pid);

/* In the child: it shall be killed when its parent dies. DK_CANCELLED: the parent, whose number
   it was told, is gone already. */
DK_MUST_USE dk_status dk_process_bind(int parent, dk_error *err);

/* Bytes of memory that this process holds now; 0: not known. */
double dk_process_resident_bytes(void);

/* From here on exit() ends this process with its code, but without what libraries do at their
   ends (atexit, destructors): for those that hang, crash, or take from a thread that cannot be
   stopped what it works on. What is registered with on_exit later is done before. */
void dk_process_skip_ends(void);

/* SIGTERM and SIGINT end nothing from here on, but make *fd readable; owned. */
DK_MUST_USE dk_status dk_process_watch_ends(int *fd, dk_error *err);

/* In the child `index` of `of`: runs on its share (dk_topology_share) of the cores that it may
   use. */
void dk_process_share_cores(int index, int of);

#endif
