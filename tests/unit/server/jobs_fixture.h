/* Stores of jobs for tests. */
#ifndef DK_TESTS_JOBS_FIXTURE_H
#define DK_TESTS_JOBS_FIXTURE_H

#include <stdint.h>

#include "server/jobs/jobs.h"

/* A fresh empty folder, in memory where the system has such a place: there fsync costs nothing.
   Owned: scratch_remove. */
char *store_scratch(void);

/* A store in folder/store, opened; `keep_results_h` and `max_store_gb` as in the options. */
dk_jobs *store_open_with(const char *folder, double keep_results_h, double max_store_gb);
dk_jobs *store_open(const char *folder);                /* keeps everything */
char *store_path(const char *folder, const char *name); /* folder/store/name (dk_free) */

/* An order of a video with two outputs and one input of a few bytes. */
dk_job_order order_plain(void);
char *store_create(dk_jobs *jobs, const char *kind, const char *owner); /* id (dk_free) */

/* Writes output-INDEX.mp4 of `size` bytes and records it; true when that completed the job. */
bool store_output(dk_jobs *jobs, const char *id, int index, size_t size);
void store_complete(dk_jobs *jobs, const char *id, size_t size); /* both outputs */

dk_job_state store_state(dk_jobs *jobs, const char *id);

/* Whether the job's file is there. */
bool store_has(const dk_jobs *jobs, const char *id, const char *name);

/* Runs statements on the database beside the store, which must be closed; a statement that
   gives a row gives a number, which is returned (0 otherwise). */
int64_t store_sql(const char *folder, const char *text);

#endif
