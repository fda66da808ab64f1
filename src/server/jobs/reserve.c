/* The reserve: space for those changes that make space. */
#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/file.h"
#include "server/jobs/store.h"

enum {
    RESERVE_BYTES = 1 << 20, /* many times what ending or removing a batch of jobs writes */
    PLENTY = 4               /* times the reserve must be free before it is made */
};

static bool has_plenty(const char *path)
{
    struct statvfs space;
    return statvfs(path, &space) == 0 &&
           (uint64_t)space.f_bavail * space.f_frsize >= (uint64_t)PLENTY * RESERVE_BYTES;
}

void dk_jobs_reserve_make(dk_jobs *jobs)
{
    if (dk_path_exists(jobs->reserve) || !has_plenty(jobs->path)) {
        return;
    }
    int fd = open(jobs->reserve, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
        return;
    }
    int failed = posix_fallocate(fd, 0, RESERVE_BYTES);
    close(fd);
    if (failed != 0) {
        unlink(jobs->reserve);
    }
}

bool dk_jobs_reserve_give_up(dk_jobs *jobs)
{
    if (unlink(jobs->reserve) != 0) {
        return false;
    }
    dk_log_warn(jobs->log,
                "%s: no space left; a reserve of %d bytes was given up so that jobs can end",
                jobs->path, (int)RESERVE_BYTES);
    return true;
}
