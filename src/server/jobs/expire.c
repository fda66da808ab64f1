/* What the store holds, and what has to go: by age, then by bytes, in small transactions. The
   bytes are those of the rows; no folder is looked at. */
#include "base/alloc.h"
#include "server/jobs/store.h"

enum { BATCH = 32 }; /* jobs per transaction */

typedef struct removal {
    int64_t until_ms; /* those that ended by then … */
    int64_t too_much; /* … or, when positive, the oldest that hold at least these bytes */
    char *ids[BATCH]; /* owned */
    int64_t seqs[BATCH];
    int count;
    int64_t bytes;
} removal;

static dk_status read_usage(dk_sql_link *link, dk_jobs_usage *out, dk_error *err)
{
    sqlite3_stmt *statement;
    DK_TRY(dk_sql_begin(&statement, link, DK_SQL_USAGE, NULL, 0, err));
    for (bool row = true; row;) {
        DK_TRY(dk_sql_next(link, statement, &row, err));
        if (row) {
            out->count[sqlite3_column_int(statement, 0)] = sqlite3_column_int64(statement, 1);
            out->bytes += sqlite3_column_int64(statement, 2);
        }
    }
    return DK_OK;
}

dk_status dk_jobs_usage_get(dk_jobs *jobs, dk_jobs_usage *out, dk_error *err)
{
    dk_jobs_usage usage = {0};
    DK_TRY(dk_jobs_read_begin(jobs, err));
    dk_status status = read_usage(&jobs->reader, &usage, err);
    dk_jobs_read_end(jobs);
    if (status == DK_OK) {
        *out = usage;
    }
    return status;
}

static void forget(removal *batch)
{
    for (int i = 0; i < batch->count; i++) {
        dk_free(batch->ids[i]);
    }
    batch->count = 0;
    batch->bytes = 0;
}

static dk_status choose(dk_sql_link *link, removal *batch, dk_error *err)
{
    sqlite3_stmt *statement;
    bool by_bytes = batch->too_much > 0, row = false;
    const dk_sql_value old[] = {dk_sql_integer(batch->until_ms), dk_sql_integer(BATCH)};
    DK_TRY(dk_sql_begin(&statement, link, by_bytes ? DK_SQL_LARGE : DK_SQL_OLD,
                        by_bytes ? &old[1] : old, by_bytes ? 1 : 2, err));
    for (;;) {
        DK_TRY(dk_sql_next(link, statement, &row, err));
        if (!row) {
            return DK_OK;
        }
        if (by_bytes && batch->bytes >= batch->too_much) {
            dk_sql_end(statement);
            return DK_OK;
        }
        batch->seqs[batch->count] = sqlite3_column_int64(statement, 0);
        batch->ids[batch->count] = dk_sql_column(statement, 1);
        batch->bytes += sqlite3_column_int64(statement, 2);
        batch->count++;
    }
}

static dk_status remove_batch(dk_jobs *jobs, void *context, dk_error *err)
{
    removal *batch = context;
    forget(batch); /* of a first attempt */
    DK_TRY(choose(&jobs->writer, batch, err));
    for (int i = 0; i < batch->count; i++) {
        const dk_sql_value values[] = {dk_sql_integer(batch->seqs[i])};
        DK_TRY(dk_sql_run(&jobs->writer, DK_SQL_DELETE, values, 1, NULL, err));
    }
    return DK_OK;
}

typedef struct removal_listener {
    void (*removed)(void *context, const char *id);
    void *context;
} removal_listener;

/* *count: how many jobs went, with *bytes. */
static dk_status run_batch(dk_jobs *jobs, removal *batch, const removal_listener *listener,
                           int *count, int64_t *bytes, dk_error *err)
{
    dk_status status = dk_jobs_transaction(jobs, remove_batch, batch, true, err);
    *count = status == DK_OK ? batch->count : 0;
    *bytes = batch->bytes;
    for (int i = 0; i < *count; i++) {
        dk_jobs_folder_remove(jobs, batch->ids[i]);
        if (listener->removed != NULL) {
            listener->removed(listener->context, batch->ids[i]);
        }
    }
    forget(batch);
    return status;
}

static dk_status expire_by_age(dk_jobs *jobs, const removal_listener *listener, dk_error *err)
{
    removal batch = {.until_ms = dk_jobs_now_ms() - jobs->keep_ms};
    int64_t bytes;
    int count = jobs->keep_ms > 0 ? BATCH : 0;
    while (count == BATCH) {
        DK_TRY(run_batch(jobs, &batch, listener, &count, &bytes, err));
    }
    return DK_OK;
}

static dk_status expire_by_bytes(dk_jobs *jobs, const removal_listener *listener, dk_error *err)
{
    dk_jobs_usage usage = {0};
    int count = 1;
    if (jobs->max_bytes == 0) {
        return DK_OK;
    }
    DK_TRY(dk_jobs_usage_get(jobs, &usage, err));
    int64_t too_much = usage.bytes - jobs->max_bytes;
    while (count > 0 && too_much > 0) {
        removal batch = {.too_much = too_much};
        int64_t bytes = 0;
        DK_TRY(run_batch(jobs, &batch, listener, &count, &bytes, err));
        too_much -= bytes;
    }
    return DK_OK;
}

dk_status dk_jobs_expire(dk_jobs *jobs, void (*removed)(void *context, const char *id),
                         void *context, dk_error *err)
{
    const removal_listener listener = {removed, context};
    DK_TRY(expire_by_age(jobs, &listener, err));
    DK_TRY(expire_by_bytes(jobs, &listener, err));
    dk_jobs_reserve_make(jobs);
    return DK_OK;
}
