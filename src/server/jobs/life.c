/* The transitions of a job. SQL guards each of them, so that a job ends once. */
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/file.h"
#include "server/jobs/store.h"

/* One transition: what it is about, and what came of it. */
typedef struct transition {
    const char *id;
    dk_job_state end; /* of one that ends the job */
    const char *code, *message;
    const dk_job_output *output;
    int64_t total_bytes; /* of the output's files */
    dk_job_row row;
    bool changed;
} transition;

static dk_status find(dk_jobs *jobs, transition *step, dk_error *err)
{
    return dk_jobs_find(&jobs->writer, step->id, NULL, &step->row, err);
}

static dk_status fail_ended(const transition *step, dk_error *err)
{
    return dk_fail(err, DK_MISMATCH, "job %s has ended (%s), expected one that has not",
                   step->id, dk_job_state_name(step->row.state));
}

static dk_status start(dk_jobs *jobs, void *context, dk_error *err)
{
    transition *step = context;
    DK_TRY(find(jobs, step, err));
    if (dk_job_state_is_final(step->row.state)) {
        return fail_ended(step, err);
    }
    const dk_sql_value values[] = {dk_sql_integer(step->row.seq),
                                   dk_sql_integer(dk_jobs_now_ms())};
    return dk_sql_run(&jobs->writer, DK_SQL_START, values, 2, NULL, err);
}

dk_status dk_jobs_start(dk_jobs *jobs, const char *id, dk_error *err)
{
    transition step = {.id = id};
    return dk_jobs_transaction(jobs, start, &step, true, err);
}

static dk_status retry(dk_jobs *jobs, void *context, dk_error *err)
{
    transition *step = context;
    DK_TRY(find(jobs, step, err));
    if (dk_job_state_is_final(step->row.state)) {
        return fail_ended(step, err);
    }
    const dk_sql_value values[] = {dk_sql_integer(step->row.seq)};
    return dk_sql_run(&jobs->writer, DK_SQL_RETRY, values, 1, NULL, err);
}

dk_status dk_jobs_retry(dk_jobs *jobs, const char *id, int *attempts, dk_error *err)
{
    transition step = {.id = id};
    DK_TRY(dk_jobs_transaction(jobs, retry, &step, true, err));
    *attempts = step.row.attempts + 1;
    return DK_OK;
}

/* Adds the size of a file of the job; none is fine. */
static dk_status add_size(dk_jobs *jobs, const char *id, const char *name, int64_t *total,
                          dk_error *err)
{
    if (name == NULL) {
        return DK_OK;
    }
    struct stat info;
    char *path = dk_jobs_path(jobs, id, name);
    dk_status status = DK_OK;
    if (path == NULL || stat(path, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = dk_fail(err, DK_NOT_FOUND,
                         "job %s has no file '%s', expected an output's file", id, name);
    } else {
        *total += info.st_size;
    }
    dk_free(path);
    return status;
}

static dk_status record_output(dk_jobs *jobs, const transition *step, dk_error *err)
{
    const dk_job_output *output = step->output;
    const dk_sql_value count[] = {dk_sql_integer(step->row.seq), dk_sql_integer(output->index),
                                  dk_sql_integer(step->total_bytes)};
    const dk_sql_value values[] = {
        count[0],
        count[1],
        dk_sql_text(output->file),
        dk_sql_text(output->thumbnail),
        dk_sql_text(output->spritesheet),
        dk_sql_text(output->recipe),
        dk_sql_integer(output->bytes),
        count[2],
        dk_sql_real(output->engine_ms),
    };
    int changes = 0;
    DK_TRY(dk_sql_run(&jobs->writer, DK_SQL_COUNT_OUTPUT, count, 3, NULL, err));
    DK_TRY(dk_sql_run(&jobs->writer, DK_SQL_OUTPUT_DONE, values, 9, &changes, err));
    return changes == 1
               ? DK_OK
               : dk_fail(err, DK_INVALID, "job %s has no output %d", step->id, output->index);
}

static dk_status output_done(dk_jobs *jobs, void *context, dk_error *err)
{
    transition *step = context;
    int changes = 0;
    step->changed = false;
    DK_TRY(find(jobs, step, err));
    if (dk_job_state_is_final(step->row.state)) {
        return DK_OK;
    }
    DK_TRY(record_output(jobs, step, err));
    int64_t now_ms = dk_jobs_now_ms();
    const dk_sql_value values[] = {dk_sql_integer(step->row.seq), dk_sql_integer(now_ms),
                                   dk_sql_integer(dk_jobs_expiry(jobs, now_ms))};
    DK_TRY(dk_sql_run(&jobs->writer, DK_SQL_COMPLETE, values, 3, &changes, err));
    step->changed = changes == 1;
    return DK_OK;
}

dk_status dk_jobs_output_done(dk_jobs *jobs, const char *id, const dk_job_output *output,
                              bool *completed, dk_error *err)
{
    transition step = {.id = id, .output = output};
    DK_TRY(add_size(jobs, id, output->file, &step.total_bytes, err));
    DK_TRY(add_size(jobs, id, output->thumbnail, &step.total_bytes, err));
    DK_TRY(add_size(jobs, id, output->spritesheet, &step.total_bytes, err));
    DK_TRY(dk_jobs_transaction(jobs, output_done, &step, true, err));
    *completed = step.changed;
    if (step.changed) {
        dk_jobs_folder_tidy(jobs, id, true, false);
    }
    return DK_OK;
}

static dk_status end(dk_jobs *jobs, void *context, dk_error *err)
{
    transition *step = context;
    int changes = 0;
    step->changed = false;
    DK_TRY(find(jobs, step, err));
    int64_t now_ms = dk_jobs_now_ms();
    const dk_sql_value values[] = {
        dk_sql_integer(step->row.seq), dk_sql_integer(step->end),
        dk_sql_integer(now_ms),        dk_sql_integer(dk_jobs_expiry(jobs, now_ms)),
        dk_sql_text(step->code),       dk_sql_text(step->message)};
    DK_TRY(dk_sql_run(&jobs->writer, DK_SQL_END, values, 6, &changes, err));
    step->changed = changes == 1;
    return DK_OK;
}

static dk_status end_job(dk_jobs *jobs, transition *step, bool *ended, dk_error *err)
{
    DK_TRY(dk_jobs_transaction(jobs, end, step, true, err));
    *ended = step->changed;
    if (step->changed) {
        dk_jobs_folder_tidy(jobs, step->id, true, false);
    }
    return DK_OK;
}

dk_status dk_jobs_fail(dk_jobs *jobs, const char *id, const char *code, const char *message,
                       bool *ended, dk_error *err)
{
    transition step = {.id = id, .end = DK_JOB_FAILED, .code = code, .message = message};
    return end_job(jobs, &step, ended, err);
}

dk_status dk_jobs_cancel(dk_jobs *jobs, const char *id, bool *ended, dk_error *err)
{
    transition step = {.id = id, .end = DK_JOB_CANCELLED};
    return end_job(jobs, &step, ended, err);
}

static dk_status delete_job(dk_jobs *jobs, void *context, dk_error *err)
{
    transition *step = context;
    DK_TRY(find(jobs, step, err));
    const dk_sql_value values[] = {dk_sql_integer(step->row.seq)};
    return dk_sql_run(&jobs->writer, DK_SQL_DELETE, values, 1, NULL, err);
}

dk_status dk_jobs_delete(dk_jobs *jobs, const char *id, dk_error *err)
{
    transition step = {.id = id};
    DK_TRY(dk_jobs_transaction(jobs, delete_job, &step, true, err));
    dk_jobs_folder_remove(jobs, id);
    return DK_OK;
}
