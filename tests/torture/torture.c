/* The replaced calls. A close that fails has closed all the same, as Linux does it. */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/alloc.h"

static atomic_int remaining;
static _Atomic(const char *) failed;

void torture_arm(int nth)
{
    atomic_store(&failed, NULL);
    atomic_store(&remaining, nth);
}

bool torture_disarm(const char **what)
{
    atomic_store(&remaining, 0);
    *what = atomic_load(&failed);
    return *what != NULL;
}

static bool fails(const char *what, int code)
{
    if (atomic_load(&remaining) == 0 || atomic_fetch_sub(&remaining, 1) != 1) {
        return false;
    }
    atomic_store(&failed, what);
    errno = code;
    return true;
}

dk_status __real_dk_try_alloc(void **out, size_t bytes, const char *what, dk_error *err);
dk_status __wrap_dk_try_alloc(void **out, size_t bytes, const char *what, dk_error *err);
dk_status __wrap_dk_try_alloc(void **out, size_t bytes, const char *what, dk_error *err)
{
    return fails("dk_try_alloc", ENOMEM)
               ? dk_fail(err, DK_MEMORY, "%s: %zu bytes are not available", what, bytes)
               : __real_dk_try_alloc(out, bytes, what, err);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    return fails("open", EIO) ? -1 : __real_open(path, flags, 0666);
}

FILE *__real_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode)
{
    return fails("fopen", EACCES) ? NULL : __real_fopen(path, mode);
}

int __real_fclose(FILE *file);
int __wrap_fclose(FILE *file);
int __wrap_fclose(FILE *file)
{
    bool fail = fails("fclose", 0);
    int result = __real_fclose(file);
    errno = fail ? ENOSPC : errno;
    return fail ? EOF : result;
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    bool fail = fails("close", 0);
    int result = __real_close(fd);
    errno = fail ? EIO : errno;
    return fail ? -1 : result;
}

size_t __real_fwrite(const void *bytes, size_t size, size_t count, FILE *file);
size_t __wrap_fwrite(const void *bytes, size_t size, size_t count, FILE *file);
size_t __wrap_fwrite(const void *bytes, size_t size, size_t count, FILE *file)
{
    return fails("fwrite", ENOSPC) ? 0 : __real_fwrite(bytes, size, count, file);
}

void *__real_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    return fails("mmap", ENOMEM) ? MAP_FAILED
                                 : __real_mmap(at, size, protection, flags, fd, offset);
}

int __real_pthread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *context);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *context);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *context)
{
    return fails("pthread_create", EAGAIN)
               ? EAGAIN
               : __real_pthread_create(id, attributes, run, context);
}

/* The others fail with -1 and errno. */
#define TORTURE(type, name, code, parameters, arguments)                                       \
    type __real_##name parameters;                                                             \
    type __wrap_##name parameters;                                                             \
    type __wrap_##name parameters                                                              \
    {                                                                                          \
        return fails(#name, code) ? -1 : __real_##name arguments;                              \
    }

TORTURE(ssize_t, read, EIO, (int fd, void *bytes, size_t size), (fd, bytes, size))
TORTURE(ssize_t, write, ENOSPC, (int fd, const void *bytes, size_t size), (fd, bytes, size))
TORTURE(int, fsync, EIO, (int fd), (fd))
TORTURE(int, fstat, EIO, (int fd, struct stat *info), (fd, info))
TORTURE(int, rename, EACCES, (const char *from, const char *to), (from, to))
TORTURE(int, mkdir, EACCES, (const char *path, mode_t mode), (path, mode))
TORTURE(int, fflush, ENOSPC, (FILE * file), (file))
