/* The shared page of arrivals. */
#include "comm/xccl/arrivals.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

dk_status dk_xccl_board_open(dk_xccl_board **out, const char *name, dk_error *err)
{
    int fd = shm_open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return dk_fail(err, DK_IO, "xccl: shared memory %s: %s", name, strerror(errno));
    }
    void *memory = MAP_FAILED;
    if (ftruncate(fd, sizeof(dk_xccl_board)) == 0) {
        memory = mmap(NULL, sizeof(dk_xccl_board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    int code = errno;
    close(fd);
    if (memory == MAP_FAILED) {
        shm_unlink(name);
        return dk_fail(err, DK_IO, "xccl: shared memory %s: %s", name, strerror(code));
    }
    *out = memory;
    return DK_OK;
}

void dk_xccl_board_hide(const char *name)
{
    shm_unlink(name);
}

void dk_xccl_board_close(dk_xccl_board *board)
{
    if (board != NULL) {
        munmap(board, sizeof *board);
    }
}
