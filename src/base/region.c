/* Regions: anonymous mappings that reserve nothing. And the size of pages. */
#define _DEFAULT_SOURCE /* madvise */
#include "base/region.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LARGE_FROM = 4 << 20 }; /* bytes that hold a page of 2 MiB wherever they begin */

dk_status dk_region_open(void **out, size_t bytes, const char *what, dk_error *err)
{
    void *memory = mmap(NULL, bytes > 0 ? bytes : 1, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return dk_fail(err, DK_MEMORY, "%s: no address space for %zu bytes: %s", what, bytes,
                       strerror(errno));
    }
    dk_pages_make_large(memory, bytes);
    *out = memory;
    return DK_OK;
}

void dk_region_close(void *memory, size_t bytes)
{
    if (memory != NULL) {
        munmap(memory, bytes > 0 ? bytes : 1);
    }
}

void dk_pages_give_back(const void *memory, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)memory;
    uintptr_t first = start / page * page, end = (start + bytes + page - 1) / page * page;
    if (bytes > 0) {
        int given = madvise((void *)first, end - first, MADV_DONTNEED);
        (void)given; /* locked pages stay */
    }
}

void dk_pages_make_large(void *memory, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)memory;
    uintptr_t first = (start + page - 1) / page * page, end = (start + bytes) / page * page;
    if (bytes >= LARGE_FROM) {
        int advised = madvise((void *)first, end - first, MADV_HUGEPAGE);
        (void)advised; /* small ones do as well */
    }
}
