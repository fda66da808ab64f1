/* A VFS over the default one. */
#include "faulty_vfs.h"

#include <sqlite3.h>
#include <stddef.h>

/* One thread uses it; the files of the default VFS lie behind ours. */
typedef struct faulty_file {
    sqlite3_file base;
    sqlite3_file *real;
} faulty_file;

static struct {
    sqlite3_vfs vfs, *real;
    int countdown, code, failures;
    bool lasting;
} faulty;

static bool fails(void)
{
    if (faulty.countdown == 0 || --faulty.countdown > 0) {
        return false;
    }
    faulty.failures++;
    faulty.countdown = faulty.lasting ? 1 : 0;
    return true;
}

static sqlite3_file *real_of(sqlite3_file *file)
{
    return ((faulty_file *)file)->real;
}

static int on_close(sqlite3_file *file)
{
    return real_of(file)->pMethods->xClose(real_of(file));
}
static int on_read(sqlite3_file *file, void *bytes, int size, sqlite3_int64 offset)
{
    return real_of(file)->pMethods->xRead(real_of(file), bytes, size, offset);
}
static int on_write(sqlite3_file *file, const void *bytes, int size, sqlite3_int64 offset)
{
    if (fails()) {
        return faulty.code;
    }
    return real_of(file)->pMethods->xWrite(real_of(file), bytes, size, offset);
}
static int on_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return fails() ? faulty.code : real_of(file)->pMethods->xTruncate(real_of(file), size);
}
static int on_sync(sqlite3_file *file, int flags)
{
    return fails() ? faulty.code : real_of(file)->pMethods->xSync(real_of(file), flags);
}
static int on_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return real_of(file)->pMethods->xFileSize(real_of(file), size);
}
static int on_lock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xLock(real_of(file), level);
}
static int on_unlock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xUnlock(real_of(file), level);
}
static int on_check_reserved(sqlite3_file *file, int *reserved)
{
    return real_of(file)->pMethods->xCheckReservedLock(real_of(file), reserved);
}
static int on_control(sqlite3_file *file, int op, void *argument)
{
    return real_of(file)->pMethods->xFileControl(real_of(file), op, argument);
}
static int on_sector(sqlite3_file *file)
{
    return real_of(file)->pMethods->xSectorSize(real_of(file));
}
static int on_characteristics(sqlite3_file *file)
{
    return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}
static int on_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **out)
{
    if (extend && fails()) {
        return faulty.code;
    }
    return real_of(file)->pMethods->xShmMap(real_of(file), page, size, extend, out);
}
static int on_shm_lock(sqlite3_file *file, int offset, int count, int flags)
{
    return real_of(file)->pMethods->xShmLock(real_of(file), offset, count, flags);
}
static void on_shm_barrier(sqlite3_file *file)
{
    real_of(file)->pMethods->xShmBarrier(real_of(file));
}
static int on_shm_unmap(sqlite3_file *file, int remove)
{
    return real_of(file)->pMethods->xShmUnmap(real_of(file), remove);
}

static const sqlite3_io_methods methods = {2,
                                           on_close,
                                           on_read,
                                           on_write,
                                           on_truncate,
                                           on_sync,
                                           on_size,
                                           on_lock,
                                           on_unlock,
                                           on_check_reserved,
                                           on_control,
                                           on_sector,
                                           on_characteristics,
                                           on_shm_map,
                                           on_shm_lock,
                                           on_shm_barrier,
                                           on_shm_unmap,
                                           NULL,
                                           NULL};

static int on_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *file, int flags,
                   int *out_flags)
{
    (void)vfs;
    faulty_file *ours = (faulty_file *)file;
    ours->real = (sqlite3_file *)(ours + 1);
    int code = faulty.real->xOpen(faulty.real, name, ours->real, flags, out_flags);
    ours->base.pMethods = ours->real->pMethods != NULL ? &methods : NULL;
    return code;
}

void faulty_vfs_install(void)
{
    faulty.real = sqlite3_vfs_find(NULL);
    faulty.vfs = *faulty.real;
    faulty.vfs.zName = "faulty";
    faulty.vfs.szOsFile += (int)sizeof(faulty_file);
    faulty.vfs.xOpen = on_open;
    sqlite3_vfs_register(&faulty.vfs, 1);
}

void faulty_vfs_arm(int nth, int code, bool lasting)
{
    faulty.countdown = nth;
    faulty.code = code;
    faulty.lasting = lasting;
    faulty.failures = 0;
}

int faulty_vfs_failures(void)
{
    return faulty.failures;
}
