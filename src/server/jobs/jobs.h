/* The store of jobs: SQLite (WAL, synchronous FULL) and a folder per job. Accepted means
   stored: when dk_jobs_create returned, neither kill -9 nor a power cut loses the job.

     STORE/jobs.sqlite
     STORE/lock                        held (flock) by the one server that uses the store
     STORE/reserve                     space for ending and removing jobs when the disk is full
     STORE/jobs/ID/input-image.png     what came in, named by the caller
     STORE/jobs/ID/checkpoint-0        the worker's, of output 0
     STORE/jobs/ID/output-0.mp4, thumbnail-0.jpg, …

   Files come before rows and go after them: a folder without a row is swept when the store is
   opened. A job ends exactly once: the functions that end one say whether it was theirs. All
   functions may be called from any thread; texts in structs are owned by the struct. */
#ifndef DK_SERVER_JOBS_JOBS_H
#define DK_SERVER_JOBS_JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"

typedef struct dk_jobs dk_jobs;

typedef enum dk_job_state {
    DK_JOB_QUEUED,
    DK_JOB_IN_PROGRESS,
    DK_JOB_COMPLETED,
    DK_JOB_FAILED,
    DK_JOB_CANCELLED
} dk_job_state;
const char *dk_job_state_name(dk_job_state state); /* "in_progress" */
bool dk_job_state_is_final(dk_job_state state);

/* One file that a job takes or gives: bytes for dk_jobs_create, else a name in its folder. */
typedef struct dk_job_input {
    const char *name; /* "input-image.png": a plain file name */
    const void *data;
    size_t size;
} dk_job_input;

typedef struct dk_job_output {
    int index;
    uint64_t seed;
    bool done;
    char *file, *thumbnail, *spritesheet; /* names in the job's folder; NULL: none (yet) */
    char *recipe;                         /* JSON text; NULL */
    int64_t bytes;                        /* of file */
    double engine_ms;                     /* that the device spent */
} dk_job_output;

typedef struct dk_job_record {
    char *id;    /* "video_" or "image_" and 32 hex digits */
    char *kind;  /* "video", "image" */
    char *owner; /* dk_http_request.key; "" */
    dk_job_state state;
    char *request; /* JSON text: what the engine is asked for, and the output format */
    int priority;
    int64_t created_ms, started_ms, completed_ms, expires_ms, deadline_ms; /* Unix; 0: none */
    int attempts;                        /* times that a worker was lost with it */
    char *error, *code;                  /* of a failed one: message and short code; NULL */
    char *idempotency_key, *body_sha256; /* NULL: none */
    int output_count;
    dk_job_output *outputs; /* [output_count] */
} dk_job_record;
void dk_job_record_release(dk_job_record *record);

typedef struct dk_jobs_options {
    const char *path;      /* made when absent */
    double keep_results_h; /* finished jobs are removed after; 0: never */
    double max_store_gb;   /* finished jobs are removed, oldest first, above; 0: no limit */
    const dk_log *log;
} dk_jobs_options;

/* Locks, recovers, sweeps. DK_BUSY: another server uses the store (its pid is named). A damaged
   database is DK_FORMAT and is left as it is; that of a newer version is DK_UNSUPPORTED. Jobs
   that were in progress are queued again. A completed job whose file is gone, or an unfinished
   one whose folder is, becomes failed with the code "file_missing". When there is no database,
   folders of jobs are not swept but put aside (STORE/jobs-without-database-…). */
DK_MUST_USE dk_status dk_jobs_open(dk_jobs **out, const dk_jobs_options *options,
                                   dk_error *err);
void dk_jobs_close(dk_jobs **jobs);

/* What dk_jobs_create is given. */
typedef struct dk_job_order {
    const char *kind, *owner, *request; /* as in the record */
    int priority;
    int64_t deadline_ms;
    const uint64_t *seeds; /* [output_count] */
    int output_count;
    const dk_job_input *inputs; /* [input_count] */
    int input_count;
    const char *idempotency_key; /* NULL: none; unique per owner */
    const char *body_sha256;
} dk_job_order;

/* Stores a job as queued; *id (owned) receives its name. With an idempotency key that exists
   already, *id is the job of that time and *again is true; DK_MISMATCH when its body differed.
   DK_NO_SPACE: the disk is full, nothing was stored. */
DK_MUST_USE dk_status dk_jobs_create(dk_jobs *jobs, const dk_job_order *order, char **id,
                                     bool *again, dk_error *err);

/* DK_NOT_FOUND when there is none. owner: only jobs of that owner; NULL: all. */
DK_MUST_USE dk_status dk_jobs_get(dk_jobs *jobs, const char *id, const char *owner,
                                  dk_job_record *out, dk_error *err);

typedef struct dk_jobs_query {
    const char *kind, *owner; /* NULL: any */
    const char *after;        /* id: the page behind it; NULL: from the start */
    int limit;                /* 1.. */
    bool ascending;           /* by creation; else the newest first */
    bool unfinished;          /* only queued and in progress */
    bool finished;            /* only the others */
} dk_jobs_query;
typedef struct dk_job_list {
    dk_job_record *records; /* [count], owned */
    int count;
    bool more;
} dk_job_list;
/* DK_NOT_FOUND: there is no job `after` (of that owner). Owned: dk_job_list_release. */
DK_MUST_USE dk_status dk_jobs_list(dk_jobs *jobs, const dk_jobs_query *query, dk_job_list *out,
                                   dk_error *err);
void dk_job_list_release(dk_job_list *list);

/* Of all that follow: DK_NOT_FOUND when there is no such job. They succeed on a full disk too,
   as long as the reserve lasts.

   queued -> in progress; DK_OK also when it already was, DK_MISMATCH when it has ended. */
DK_MUST_USE dk_status dk_jobs_start(dk_jobs *jobs, const char *id, dk_error *err);
/* A worker was lost with it: queued again, attempts + 1 (*attempts). DK_MISMATCH: it has ended.
 */
DK_MUST_USE dk_status dk_jobs_retry(dk_jobs *jobs, const char *id, int *attempts,
                                    dk_error *err);
/* Records an output whose files are in place (fsynced, renamed). When it was the last one, the
   job becomes completed and *completed is true. Nothing happens to a job that has ended. One
   that was recorded before is replaced; its seed stays. DK_NOT_FOUND also for a file that is
   not there, DK_INVALID for an index that the job does not have. */
DK_MUST_USE dk_status dk_jobs_output_done(dk_jobs *jobs, const char *id,
                                          const dk_job_output *output, bool *completed,
                                          dk_error *err);
/* Ends a job as failed (code, message) or cancelled. *ended: it had not ended before. */
DK_MUST_USE dk_status dk_jobs_fail(dk_jobs *jobs, const char *id, const char *code,
                                   const char *message, bool *ended, dk_error *err);
DK_MUST_USE dk_status dk_jobs_cancel(dk_jobs *jobs, const char *id, bool *ended, dk_error *err);
/* Removes a job and its folder, whatever its state. */
DK_MUST_USE dk_status dk_jobs_delete(dk_jobs *jobs, const char *id, dk_error *err);

/* A path inside the job's folder (owned); NULL when the name is no plain file name, or the id
   none that dk_jobs_create gives. */
char *dk_jobs_path(const dk_jobs *jobs, const char *id, const char *name);
/* Writes bytes there: temporary name, fsync, rename, fsync of the folder. DK_NO_SPACE: nothing
   was changed; DK_NOT_FOUND: the job is gone. One writer per file. */
DK_MUST_USE dk_status dk_jobs_write(dk_jobs *jobs, const char *id, const char *name,
                                    const void *data, size_t size, dk_error *err);
/* Makes a file that another writer has put there (under its final name) last: fsync. */
DK_MUST_USE dk_status dk_jobs_persist(dk_jobs *jobs, const char *id, const char *name,
                                      dk_error *err);

typedef struct dk_jobs_usage {
    int64_t count[5]; /* by dk_job_state */
    int64_t bytes;    /* of all inputs and recorded outputs */
} dk_jobs_usage;
DK_MUST_USE dk_status dk_jobs_usage_get(dk_jobs *jobs, dk_jobs_usage *out, dk_error *err);

/* Moves what was written from the log into the database, beside everybody's work; to be called
   every few seconds. */
void dk_jobs_tidy_log(dk_jobs *jobs);

/* Removes what has expired and what is too much; to be called now and then. `removed` is called
   with the id of each job that goes. */
DK_MUST_USE dk_status dk_jobs_expire(dk_jobs *jobs,
                                     void (*removed)(void *context, const char *id),
                                     void *context, dk_error *err);

#endif
