/* Temporary folders for tests, and files of the tree linked into them. */
#ifndef DK_TESTS_SCRATCH_H
#define DK_TESTS_SCRATCH_H

#include "base/error.h"

/* A fresh empty folder; owned: scratch_remove. */
char *scratch_create(void);
void scratch_remove(char *folder); /* with everything in it */

/* folder/name (dk_free), whose folders are made. */
char *scratch_path(const char *folder, const char *name);
/* folder/name becomes a symbolic link to the file or folder `target`; an old one goes. */
void scratch_link(const char *folder, const char *name, const char *target);
void scratch_write(const char *folder, const char *name, const char *text);

/* Everything below the folder that is no folder, hidden files too; links are not followed. */
int scratch_count(const char *folder);

/* One line, which names `path` and says more than that. */
void assert_useful(const dk_error *err, const char *path);

#endif
