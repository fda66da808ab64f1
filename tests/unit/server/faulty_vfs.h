/* An SQLite VFS, the default one after faulty_vfs_install, whose writes and syncs fail on
   demand: how a store bears a disk that fails at any moment. */
#ifndef DK_TESTS_FAULTY_VFS_H
#define DK_TESTS_FAULTY_VFS_H

#include <stdbool.h>

void faulty_vfs_install(void);
/* From now on the nth write, sync, truncation or growth of shared memory (1: the next) fails
   with `code`, and all behind it when `lasting`; 0: none fails. */
void faulty_vfs_arm(int nth, int code, bool lasting);
int faulty_vfs_failures(void); /* since it was armed */

#endif
