/* What is done before a store is used: the server before this one may have ended anywhere. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "server/jobs/store.h"

/* A job whose file is gone. */
typedef struct lost_file {
    int64_t seq;
    int position; /* of the output; -1: the job's folder */
    dk_job_state state;
    char *path; /* owned */
} lost_file;

typedef struct loss_list {
    lost_file *items; /* [count], owned */
    int count, capacity;
} loss_list;

static void add_loss(loss_list *losses, lost_file loss)
{
    if (losses->count == losses->capacity) {
        losses->capacity = losses->capacity > 0 ? 2 * losses->capacity : 16;
        losses->items =
            dk_realloc(losses->items, (size_t)losses->capacity * sizeof *losses->items);
    }
    losses->items[losses->count++] = loss;
}

static void release(loss_list *losses)
{
    for (int i = 0; i < losses->count; i++) {
        dk_free(losses->items[i].path);
    }
    dk_free(losses->items);
}

/* One row: a job with one of its outputs that are done, or with none. */
static void look(const dk_jobs *jobs, sqlite3_stmt *row, loss_list *losses)
{
    lost_file loss = {.seq = sqlite3_column_int64(row, 0),
                      .state = (dk_job_state)sqlite3_column_int(row, 2),
                      .position = -1};
    char *id = dk_sql_column(row, 1), *file = dk_sql_column(row, 4);
    char *path = dk_jobs_folder(jobs, id);
    if (file != NULL && (dk_job_state_is_final(loss.state) || dk_path_exists(path))) {
        char *folder = path;
        loss.position = sqlite3_column_int(row, 3);
        path = dk_path_join(folder, file);
        dk_free(folder);
    }
    bool needed = file != NULL || !dk_job_state_is_final(loss.state);
    if (needed && !dk_path_exists(path)) {
        loss.path = path;
        path = NULL;
        add_loss(losses, loss);
    }
    dk_free(path);
    dk_free(file);
    dk_free(id);
}

static dk_status find_losses(dk_jobs *jobs, loss_list *losses, dk_error *err)
{
    sqlite3_stmt *statement;
    bool row = false;
    DK_TRY(dk_sql_begin(&statement, &jobs->writer, DK_SQL_STORED_FILES, NULL, 0, err));
    for (;;) {
        DK_TRY(dk_sql_next(&jobs->writer, statement, &row, err));
        if (!row) {
            return DK_OK;
        }
        look(jobs, statement, losses);
    }
}

/* A job that goes on computes a lost output once more; one that has completed, or whose inputs
   went with its folder, has failed. */
static dk_status note_loss(dk_jobs *jobs, const lost_file *loss, dk_error *err)
{
    if (!dk_job_state_is_final(loss->state) && loss->position >= 0) {
        const dk_sql_value values[] = {dk_sql_integer(loss->seq),
                                       dk_sql_integer(loss->position)};
        const dk_sql_value count[] = {values[0], values[1], dk_sql_integer(0)};
        DK_TRY(dk_sql_run(&jobs->writer, DK_SQL_COUNT_OUTPUT, count, 3, NULL, err));
        return dk_sql_run(&jobs->writer, DK_SQL_UNDO_OUTPUT, values, 2, NULL, err);
    }
    dk_string message = DK_STRING_EMPTY;
    dk_string_printf(&message, "%s is missing from the store", dk_path_name(loss->path));
    int64_t now_ms = dk_jobs_now_ms();
    const dk_sql_value values[] = {
        dk_sql_integer(loss->seq), dk_sql_text(dk_string_text(&message)),
        dk_sql_integer(now_ms), dk_sql_integer(dk_jobs_expiry(jobs, now_ms))};
    dk_status status = dk_sql_run(&jobs->writer, DK_SQL_FILE_MISSING, values, 4, NULL, err);
    dk_string_release(&message);
    return status;
}

static dk_status recover(dk_jobs *jobs, void *context, dk_error *err)
{
    loss_list losses = {0};
    int requeued = 0;
    const dk_sql_value keep[] = {dk_sql_integer(jobs->keep_ms)};
    (void)context;
    dk_status status = DK_OK;
    DK_TRY_DONE(dk_sql_run(&jobs->writer, DK_SQL_REQUEUE, NULL, 0, &requeued, err));
    DK_TRY_DONE(dk_sql_run(&jobs->writer, DK_SQL_SET_EXPIRY, keep, 1, NULL, err));
    DK_TRY_DONE(find_losses(jobs, &losses, err));
    for (int i = 0; i < losses.count; i++) {
        dk_log_warn(jobs->log, "%s: missing", losses.items[i].path);
        DK_TRY_DONE(note_loss(jobs, &losses.items[i], err));
    }
    if (requeued > 0) {
        dk_log_info(jobs->log, "%s: %d jobs were in progress and are queued again",
                    jobs->database, requeued);
    }
done:
    release(&losses);
    return status;
}

dk_status dk_jobs_recover(dk_jobs *jobs, dk_error *err)
{
    DK_TRY(dk_jobs_transaction(jobs, recover, NULL, true, err));
    return dk_jobs_sweep(jobs, err);
}
