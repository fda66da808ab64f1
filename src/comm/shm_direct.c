/* Reading another process's memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "comm/shm.h"

static bool read_all(pid_t pid, char *dst, uint64_t source, size_t bytes)
{
    while (bytes > 0) {
        struct iovec here = {dst, bytes}, there = {(void *)(uintptr_t)source, bytes};
        ssize_t got = process_vm_readv(pid, &here, 1, &there, 1, 0);
        if (got <= 0) {
            return false;
        }
        dst += got;
        source += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return true;
}

dk_status dk_shm_read(const dk_shm *g, int rank, void *dst, uint64_t source, size_t bytes,
                      const dk_comm_at *at, dk_error *err)
{
    char name[DK_SHM_NAME_BYTES];
    if (!read_all(g->life->pids[g->world[rank]], dst, source, bytes)) {
        int code = errno;
        DK_TRY(dk_shm_check_life(g, at, err));
        return dk_fail(err, DK_NETWORK, "%s: the memory of %s cannot be read: %s", at->what,
                       dk_shm_name(g, rank, name), strerror(code));
    }
    return DK_OK;
}

bool dk_shm_can_read(pid_t pid, uint64_t source, const void *expected, size_t bytes)
{
    char seen[64];
    return bytes <= sizeof seen && read_all(pid, seen, source, bytes) &&
           memcmp(seen, expected, bytes) == 0;
}
