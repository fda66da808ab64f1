/* What the files of the job store share. */
#ifndef DK_SERVER_JOBS_STORE_H
#define DK_SERVER_JOBS_STORE_H

#include "server/jobs/jobs.h"
#include "server/jobs/sql.h"

/* Three connections, so that nobody who reads waits for the disk of one who writes, and nobody
   who writes for the tidying of the log. */
struct dk_jobs {
    char *path, *folder, *database, *reserve; /* STORE, STORE/jobs, STORE/jobs.sqlite, … */
    int lock_fd;
    dk_sql_link writer, reader, keeper;
    int64_t keep_ms;   /* 0: for ever */
    int64_t max_bytes; /* 0: no limit */
    const dk_log *log;
};

/* The number of a row and what decides about its transitions. */
typedef struct dk_job_row {
    int64_t seq;
    dk_job_state state;
    int attempts;
} dk_job_row;

int64_t dk_jobs_now_ms(void); /* Unix */
/* When a job that ends at `now_ms` expires; 0: never. */
int64_t dk_jobs_expiry(const dk_jobs *jobs, int64_t now_ms);

/* Runs `change` as one transaction of the writer: all of it is stored, durably, or nothing.
   `vital` changes are those that end or remove jobs: when the disk is full they are tried once
   more with the space that the reserve gives back; such a change must bear to be run twice. */
typedef dk_status dk_jobs_change_fn(dk_jobs *jobs, void *context, dk_error *err);
DK_MUST_USE dk_status dk_jobs_transaction(dk_jobs *jobs, dk_jobs_change_fn *change,
                                          void *context, bool vital, dk_error *err);
/* Locks the reader, which sees one state of the database until the end. */
DK_MUST_USE dk_status dk_jobs_read_begin(dk_jobs *jobs, dk_error *err);
void dk_jobs_read_end(dk_jobs *jobs);

/* The row of a job, through a link that the caller has locked. DK_NOT_FOUND. owner: NULL: any.
 */
DK_MUST_USE dk_status dk_jobs_find(dk_sql_link *link, const char *id, const char *owner,
                                   dk_job_row *out, dk_error *err);

/* reserve.c. A file of some size that is given up when the disk is full, so that jobs can end
   and be removed, which is what makes space. Made (again) where there is plenty of space. */
void dk_jobs_reserve_make(dk_jobs *jobs);
bool dk_jobs_reserve_give_up(dk_jobs *jobs); /* false: there was none */

/* database.c. Opens both connections of a checked database of the newest schema. *fresh: it has
   just been made. */
DK_MUST_USE dk_status dk_jobs_database_open(dk_jobs *jobs, bool *fresh, dk_error *err);

/* recover.c. What a server that ended at any point may have left behind is put in order. */
DK_MUST_USE dk_status dk_jobs_recover(dk_jobs *jobs, dk_error *err);

/* files.c */
char *dk_jobs_folder(const dk_jobs *jobs, const char *id); /* owned */
DK_MUST_USE dk_status dk_jobs_sync_folder(const char *path, dk_error *err);
/* Makes the job's folder with its inputs, durably; nothing is left of it on failure. */
DK_MUST_USE dk_status dk_jobs_folder_make(dk_jobs *jobs, const char *id,
                                          const dk_job_input *inputs, int count, dk_error *err);
/* Removes a job's folder; what cannot be removed is logged and left to the next sweep. */
void dk_jobs_folder_remove(const dk_jobs *jobs, const char *id);
/* Removes what only an unfinished job needs. `temporaries`: all of them, not only those of
   checkpoints; for when nobody writes. */
void dk_jobs_folder_tidy(const dk_jobs *jobs, const char *id, bool finished, bool temporaries);
/* Removes folders that no row knows and tidies the others; nobody else may use the store. */
DK_MUST_USE dk_status dk_jobs_sweep(dk_jobs *jobs, dk_error *err);

#endif
