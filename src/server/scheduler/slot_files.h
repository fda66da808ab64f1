/* Files of this host for the worker of a relay that does not see them (worker/relay_files.h).
 */
#ifndef DK_SERVER_SCHEDULER_SLOT_FILES_H
#define DK_SERVER_SCHEDULER_SLOT_FILES_H

#include "server/scheduler/slot.h"

/* Pictures and checkpoints of a batch, before its "run"; what cannot be read is left out.
   DK_IO: as of dk_slot_send. */
DK_MUST_USE dk_status dk_slot_send_files(dk_slot *slot, dk_task *const *tasks, int count,
                                         dk_error *err);
/* A checkpoint that came back, of a task that runs there; one of another is passed over. The
   relay sends the next one when it has heard of this. */
DK_MUST_USE dk_status dk_slot_take_file(dk_slot *slot, const dk_message *message,
                                        dk_error *err);

#endif
