/* Files of the server's host on a host that does not see them: pictures that a batch begins
   with, and checkpoints. They lie in a private folder while the batch is there; checkpoints
   that the worker writes go back to the server's host. */
#ifndef DK_SERVER_WORKER_RELAY_FILES_H
#define DK_SERVER_WORKER_RELAY_FILES_H

#include <stdbool.h>

#include "server/wire/message.h"

typedef struct dk_relay_files dk_relay_files;

/* In a folder below `base`, borrowed, which is made when there is a file. */
dk_relay_files *dk_relay_files_create(const char *base);
void dk_relay_files_destroy(dk_relay_files **files); /* with their folder */

/* A "file" of the scheduler, for the batch that comes next. */
DK_MUST_USE dk_status dk_relay_files_keep(dk_relay_files *files, const dk_message *message,
                                          dk_error *err);
/* Paths in a "run" that lead nowhere here become those of what was kept, and of checkpoints to
   be written. false: the scheduler has not sent the files, and has to. */
bool dk_relay_files_use(dk_relay_files *files, dk_message *run);
/* The batch is over. */
void dk_relay_files_clear(dk_relay_files *files);

/* A checkpoint that was written since it was last sent, as a "file" for the scheduler; one at a
   time. false: there is none, or the one before is still on its way. */
bool dk_relay_files_changed(dk_relay_files *files, dk_message *out);
void dk_relay_files_arrived(dk_relay_files *files); /* the one that was on its way */

#endif
