/* Rows and structs. */
#ifndef DK_SERVER_JOBS_RECORD_H
#define DK_SERVER_JOBS_RECORD_H

#include "server/jobs/jobs.h"
#include "server/jobs/sql.h"

/* What dk_job_record_read reads, in its order. */
#define DK_JOB_COLUMNS                                                                         \
    "seq, id, kind, owner, state, request, priority, created_ms, started_ms, completed_ms, "   \
    "expires_ms, deadline_ms, attempts, error, code, idempotency_key, body_sha256"

/* The record of the current row of a statement that selects DK_JOB_COLUMNS, its outputs too;
   owned (dk_job_record_release). On failure *out is untouched. */
DK_MUST_USE dk_status dk_job_record_read(dk_sql_link *link, sqlite3_stmt *row,
                                         dk_job_record *out, dk_error *err);

#endif
