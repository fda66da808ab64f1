/* The store: opened by one server at a time; transactions. */
#include "server/jobs/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"

int64_t dk_jobs_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t dk_jobs_expiry(const dk_jobs *jobs, int64_t now_ms)
{
    return jobs->keep_ms > 0 ? now_ms + jobs->keep_ms : 0;
}

static dk_status run_once(dk_jobs *jobs, dk_jobs_change_fn *change, void *context,
                          dk_error *err)
{
    DK_TRY(dk_sql_run(&jobs->writer, DK_SQL_BEGIN_WRITE, NULL, 0, NULL, err));
    dk_status status = change(jobs, context, err);
    if (status == DK_OK) {
        status = dk_sql_run(&jobs->writer, DK_SQL_COMMIT, NULL, 0, NULL, err);
    }
    /* Some failures have rolled back by themselves, others leave the transaction open. */
    if (status != DK_OK && !sqlite3_get_autocommit(jobs->writer.db)) {
        dk_status undone = dk_sql_run(&jobs->writer, DK_SQL_ROLLBACK, NULL, 0, NULL, NULL);
        if (undone != DK_OK) {
            dk_log_warn(jobs->log, "%s: a change could not be rolled back: %s", jobs->database,
                        sqlite3_errmsg(jobs->writer.db));
        }
    }
    return status;
}

dk_status dk_jobs_transaction(dk_jobs *jobs, dk_jobs_change_fn *change, void *context,
                              bool vital, dk_error *err)
{
    pthread_mutex_lock(&jobs->writer.lock);
    dk_status status = run_once(jobs, change, context, err);
    if (status == DK_NO_SPACE && vital && dk_jobs_reserve_give_up(jobs)) {
        status = run_once(jobs, change, context, err);
    }
    pthread_mutex_unlock(&jobs->writer.lock);
    return status;
}

dk_status dk_jobs_read_begin(dk_jobs *jobs, dk_error *err)
{
    pthread_mutex_lock(&jobs->reader.lock);
    dk_status status = dk_sql_run(&jobs->reader, DK_SQL_BEGIN_READ, NULL, 0, NULL, err);
    if (status != DK_OK) {
        pthread_mutex_unlock(&jobs->reader.lock);
    }
    return status;
}

void dk_jobs_read_end(dk_jobs *jobs)
{
    /* What was only read has nothing to store: a failure could only be one to end, and the next
       dk_jobs_read_begin would tell. */
    dk_status ended = dk_sql_run(&jobs->reader, DK_SQL_COMMIT, NULL, 0, NULL, NULL);
    (void)ended;
    pthread_mutex_unlock(&jobs->reader.lock);
}

dk_status dk_jobs_find(dk_sql_link *link, const char *id, const char *owner, dk_job_row *out,
                       dk_error *err)
{
    sqlite3_stmt *statement;
    const dk_sql_value values[] = {dk_sql_text(id), dk_sql_text(owner)};
    bool row;
    DK_TRY(dk_sql_begin(&statement, link, DK_SQL_FIND, values, 2, err));
    DK_TRY(dk_sql_next(link, statement, &row, err));
    if (!row) {
        return dk_fail(err, DK_NOT_FOUND, "there is no job '%s'", id);
    }
    out->seq = sqlite3_column_int64(statement, 0);
    out->state = (dk_job_state)sqlite3_column_int(statement, 1);
    out->attempts = sqlite3_column_int(statement, 2);
    dk_sql_end(statement);
    return DK_OK;
}

static dk_status fail_errno(dk_error *err, const char *path)
{
    int code = errno;
    bool full = code == ENOSPC || code == EDQUOT;
    return dk_fail(err, full ? DK_NO_SPACE : DK_IO, "%s: %s", path, strerror(code));
}

/* The process that holds the lock, as it wrote it into the file; 0 when that cannot be told. */
static long holder_of(int fd)
{
    char text[32] = "";
    ssize_t got = pread(fd, text, sizeof text - 1, 0);
    return got > 0 ? strtol(text, NULL, 10) : 0;
}

static dk_status lock_store(dk_jobs *jobs, dk_error *err)
{
    char *path = dk_path_join(jobs->path, "lock"), text[32];
    dk_status status = DK_OK;
    int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        status = fail_errno(err, path);
        goto done;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        status = errno == EWOULDBLOCK
                     ? dk_fail(err, DK_BUSY,
                               "%s: the store is used by process %ld; expected a store of its "
                               "own for each server",
                               jobs->path, holder_of(fd))
                     : fail_errno(err, path);
        close(fd);
        goto done;
    }
    /* The name is for people; on a full disk the lock must do without it. */
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length) {
        dk_log_warn(jobs->log, "%s: %s", path, strerror(errno));
    }
    jobs->lock_fd = fd;
done:
    dk_free(path);
    return status;
}

/* A folder that was just made lasts when the folders above it know it, on disk. */
static void sync_parents(const char *path)
{
    char real[PATH_MAX], *slash;
    if (realpath(path, real) == NULL) {
        return;
    }
    while ((slash = strrchr(real, '/')) != NULL) {
        *slash = '\0';
        int fd = open(real[0] != '\0' ? real : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) {
            fsync(fd); /* a folder above that cannot be synced is no concern of the store */
            close(fd);
        }
    }
}

static dk_status make_folders(dk_jobs *jobs, dk_error *err)
{
    bool made = !dk_path_is_folder(jobs->path);
    DK_TRY(dk_make_folders(jobs->path, err));
    if (made) {
        sync_parents(jobs->path);
    }
    return DK_OK;
}

/* Folders of jobs whose database is gone are somebody's results: they are put aside instead of
   being swept. */
static dk_status keep_strays(dk_jobs *jobs, dk_error *err)
{
    if (rmdir(jobs->folder) == 0 || errno == ENOENT) {
        return DK_OK;
    }
    char aside[64];
    snprintf(aside, sizeof aside, "jobs-without-database-%lld", (long long)dk_jobs_now_ms());
    char *path = dk_path_join(jobs->path, aside);
    dk_status status = DK_OK;
    if (rename(jobs->folder, path) != 0) {
        status = fail_errno(err, path);
    } else {
        dk_log_warn(jobs->log,
                    "%s: there was no database; the folders of its jobs are kept as "
                    "%s",
                    jobs->database, path);
    }
    dk_free(path);
    return status;
}

static int64_t whole(double value, double unit)
{
    double product = value * unit;
    return product >= 9e18 ? INT64_MAX : product > 0 ? (int64_t)product : 0;
}

dk_status dk_jobs_open(dk_jobs **out, const dk_jobs_options *options, dk_error *err)
{
    bool fresh = false;
    dk_jobs *jobs = dk_alloc(sizeof *jobs);
    *jobs = (dk_jobs){.path = dk_strdup(options->path),
                      .folder = dk_path_join(options->path, "jobs"),
                      .database = dk_path_join(options->path, "jobs.sqlite"),
                      .reserve = dk_path_join(options->path, "reserve"),
                      .lock_fd = -1,
                      .keep_ms = whole(options->keep_results_h, 3600e3),
                      .max_bytes = whole(options->max_store_gb, 1e9),
                      .log = options->log};
    dk_status status = DK_OK;
    DK_TRY_DONE(make_folders(jobs, err));
    DK_TRY_DONE(lock_store(jobs, err));
    DK_TRY_DONE(dk_jobs_database_open(jobs, &fresh, err));
    if (fresh) {
        DK_TRY_DONE(keep_strays(jobs, err));
    }
    DK_TRY_DONE(dk_make_folders(jobs->folder, err));
    DK_TRY_DONE(dk_jobs_sync_folder(jobs->path, err));
    DK_TRY_DONE(dk_jobs_recover(jobs, err));
    dk_jobs_reserve_make(jobs);
    *out = jobs;
    jobs = NULL;
done:
    dk_jobs_close(&jobs);
    return status;
}

/* A failure (a full disk) leaves the pages in the log, where they are as safe. */
void dk_jobs_tidy_log(dk_jobs *jobs)
{
    pthread_mutex_lock(&jobs->keeper.lock);
    sqlite3_wal_checkpoint_v2(jobs->keeper.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    pthread_mutex_unlock(&jobs->keeper.lock);
}

void dk_jobs_close(dk_jobs **jobs)
{
    dk_jobs *store = *jobs;
    if (store == NULL) {
        return;
    }
    dk_sql_close(&store->reader);
    dk_sql_close(&store->keeper);
    dk_sql_close(&store->writer);
    if (store->lock_fd >= 0) {
        close(store->lock_fd); /* last: it is the lock */
    }
    dk_free(store->path);
    dk_free(store->folder);
    dk_free(store->database);
    dk_free(store->reserve);
    dk_free(store);
    *jobs = NULL;
}
