/* Folders as a whole: listing, copying a file, removing what a command made. */
#ifndef DK_CLI_FOLDER_H
#define DK_CLI_FOLDER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef struct dk_file_list {
    char **paths; /* [count], relative to the folder, sorted; owned */
    uint64_t *sizes;
    int count;
} dk_file_list;

/* All regular files below a folder, symbolic links followed, hidden entries left out. */
DK_MUST_USE dk_status dk_list_files(dk_file_list *out, const char *folder, dk_error *err);
void dk_file_list_release(dk_file_list *list);

bool dk_folder_is_empty(const char *path); /* also true for what is no folder */

/* Copies a file's content to a new file. cancel may be NULL. */
DK_MUST_USE dk_status dk_copy_file(const char *to, const char *from, const atomic_bool *cancel,
                                   dk_error *err);

/* Where folders are made that live as long as a process: XDG_RUNTIME_DIR, else TMPDIR, else
   where the system keeps temporary files. Borrowed. */
const char *dk_run_folder_base(void);

/* True when `path`, which need not exist, lies inside `folder` or is the same. */
bool dk_path_below(const char *path, const char *folder);

#endif
