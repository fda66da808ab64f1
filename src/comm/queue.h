/* The calls of an outermost group and its sub-groups, one after the other in the order in which
   they were started: by a thread of the queue's while others wait in it, else by the caller. */
#ifndef DK_COMM_QUEUE_H
#define DK_COMM_QUEUE_H

#include "comm/call.h"

typedef struct dk_comm_queue dk_comm_queue;

/* Carries out a call, in the caller's thread or beside it; what it returns is kept: after a
   failure nothing is carried out. */
typedef dk_status dk_comm_carry_fn(const dk_comm_call *call, bool beside, dk_error *err);

dk_comm_queue *dk_comm_queue_create(dk_comm_carry_fn *carry);
/* Waits for what was started. */
void dk_comm_queue_destroy(dk_comm_queue **queue);

/* Returns when the call is done; in the caller's thread when nothing waits. */
DK_MUST_USE dk_status dk_comm_queue_run(dk_comm_queue *queue, const dk_comm_call *call,
                                        dk_error *err);
/* The number of the call: 1, 2, … */
uint64_t dk_comm_queue_start(dk_comm_queue *queue, const dk_comm_call *call);
DK_MUST_USE dk_status dk_comm_queue_wait(dk_comm_queue *queue, uint64_t number, dk_error *err);

#endif
