/* The server's private folder for its socket and for files that live for a moment: of mode
   0700, named after the store, so that one left behind by a killed server is found and emptied.
 */
#ifndef DK_SERVER_SERVE_RUN_FOLDER_H
#define DK_SERVER_SERVE_RUN_FOLDER_H

#include "base/error.h"

/* In the folder `base`. Owned. The store is locked by the caller. */
DK_MUST_USE dk_status dk_run_folder_make(char **out, const char *base, const char *store_path,
                                         dk_error *err);
void dk_run_folder_remove(const char *folder);

#endif
