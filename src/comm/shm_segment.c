/* The shared memory of a group: a file without a name, which the kernel frees with its last
   mapping, whatever ends the processes. Others open it through the maker's /proc/PID/fd. */
#define _GNU_SOURCE /* memfd_create, seals */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm/shm.h"

enum { VERSION = 1, SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

/* The head of a segment; behind it the ranks, the channels, the slots of the ranks and those of
   the channels. Pages that nobody touches take no memory. */
typedef struct segment_head {
    _Alignas(4096) uint64_t nonce;
    uint32_t version, ranks;
    uint64_t size;
} segment_head;

static size_t pages(size_t bytes)
{
    enum { PAGE = 4096 };
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

static size_t channels_at(size_t ranks)
{
    return sizeof(segment_head) + pages(ranks * sizeof(dk_shm_rank));
}

static size_t slots_at(size_t ranks)
{
    return channels_at(ranks) + pages(ranks * ranks * sizeof(dk_shm_channel));
}

static size_t pair_slots_at(size_t ranks)
{
    return slots_at(ranks) + ranks * 2 * DK_SHM_SLOT_BYTES;
}

static size_t segment_size(size_t ranks)
{
    return pair_slots_at(ranks) + ranks * ranks * 2 * DK_SHM_PAIR_BYTES;
}

static dk_status map(dk_shm_segment *out, int fd, size_t size, dk_error *err)
{
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED) {
        return dk_fail(err, DK_MEMORY, "shared memory of a group, %zu bytes: %s", size,
                       strerror(errno));
    }
    *out = (dk_shm_segment){.base = base, .size = size};
    return DK_OK;
}

dk_status dk_shm_segment_create(dk_shm_segment *out, dk_shm_key *key, int ranks, dk_error *err)
{
    size_t size = segment_size((size_t)ranks);
    uint64_t nonce;
    int fd = memfd_create("darkroom-group", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0 || fcntl(fd, F_ADD_SEALS, SEALS) != 0 ||
        getrandom(&nonce, sizeof nonce, 0) != sizeof nonce) {
        int code = errno;
        if (fd >= 0) {
            close(fd);
        }
        return dk_fail(err, DK_MEMORY, "shared memory of a group, %zu bytes: %s", size,
                       strerror(code));
    }
    dk_status status = map(out, fd, size, err);
    if (status != DK_OK) {
        close(fd);
        return status;
    }
    segment_head *head = (segment_head *)(void *)out->base;
    *head = (segment_head){
        .nonce = nonce, .version = VERSION, .ranks = (uint32_t)ranks, .size = size};
    *key = (dk_shm_key){.pid = (int32_t)getpid(), .fd = fd, .nonce = nonce};
    return DK_OK;
}

static dk_status check_file(int fd, size_t size, dk_error *err)
{
    struct stat facts;
    int seals = fcntl(fd, F_GET_SEALS);
    if (fstat(fd, &facts) != 0 || facts.st_size != (off_t)size || seals < 0 ||
        (seals & SEALS) != SEALS) {
        return dk_fail(err, DK_INVALID,
                       "shared memory of a group: what was opened is not what its maker meant");
    }
    return DK_OK;
}

dk_status dk_shm_segment_open(dk_shm_segment *out, const dk_shm_key *key, int ranks,
                              dk_error *err)
{
    size_t size = segment_size((size_t)ranks);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)key->pid, (int)key->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return dk_fail(err, errno == EACCES || errno == EPERM ? DK_DENIED : DK_UNSUPPORTED,
                       "shared memory of a group: %s: %s; expected a process of the same user "
                       "that may be looked into",
                       path, strerror(errno));
    }
    dk_status status = check_file(fd, size, err);
    if (status == DK_OK) {
        status = map(out, fd, size, err);
    }
    close(fd);
    DK_TRY(status);
    const segment_head *head = (const segment_head *)(const void *)out->base;
    if (head->nonce != key->nonce || head->version != VERSION ||
        head->ranks != (uint32_t)ranks) {
        dk_shm_segment_close(out);
        return dk_fail(err, DK_INVALID, "shared memory of a group: %s is that of another one",
                       path);
    }
    return DK_OK;
}

void dk_shm_segment_close(dk_shm_segment *segment)
{
    if (segment->base != NULL) {
        munmap(segment->base, segment->size);
    }
    *segment = (dk_shm_segment){0};
}

void dk_shm_place(dk_shm *g)
{
    unsigned char *base = g->segment.base;
    g->ranks = (dk_shm_rank *)(void *)(base + sizeof(segment_head));
    g->channels = (dk_shm_channel *)(void *)(base + channels_at((size_t)g->head.ranks));
}

unsigned char *dk_shm_slot(const dk_shm *g, int rank, uint32_t round)
{
    size_t slot = (size_t)rank * 2 + round % 2;
    return g->segment.base + slots_at((size_t)g->head.ranks) + slot * DK_SHM_SLOT_BYTES;
}

unsigned char *dk_shm_pair_slot(const dk_shm *g, int from, int to, uint32_t round)
{
    size_t pair = (size_t)from * (size_t)g->head.ranks + (size_t)to;
    return g->segment.base + pair_slots_at((size_t)g->head.ranks) +
           (pair * 2 + round % 2) * DK_SHM_PAIR_BYTES;
}
