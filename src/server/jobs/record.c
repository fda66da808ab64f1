/* Rows and structs. */
#include "server/jobs/record.h"

#include <assert.h>

#include "base/alloc.h"

const char *dk_job_state_name(dk_job_state state)
{
    static const char *const names[] = {"queued", "in_progress", "completed", "failed",
                                        "cancelled"};
    assert((size_t)state < sizeof names / sizeof *names);
    return names[state];
}

bool dk_job_state_is_final(dk_job_state state)
{
    return state >= DK_JOB_COMPLETED;
}

/* Statements hold the states as numbers. */
static_assert(DK_JOB_QUEUED == 0 && DK_JOB_IN_PROGRESS == 1 && DK_JOB_COMPLETED == 2 &&
                  DK_JOB_FAILED == 3 && DK_JOB_CANCELLED == 4,
              "statements.def, schema and stored rows know these numbers");

void dk_job_record_release(dk_job_record *record)
{
    for (int i = 0; i < record->output_count; i++) {
        dk_job_output *output = &record->outputs[i];
        dk_free(output->file);
        dk_free(output->thumbnail);
        dk_free(output->spritesheet);
        dk_free(output->recipe);
    }
    dk_free(record->outputs);
    dk_free(record->id);
    dk_free(record->kind);
    dk_free(record->owner);
    dk_free(record->request);
    dk_free(record->error);
    dk_free(record->code);
    dk_free(record->idempotency_key);
    dk_free(record->body_sha256);
    *record = (dk_job_record){0};
}

static dk_job_output output_of(sqlite3_stmt *row)
{
    return (dk_job_output){
        .index = sqlite3_column_int(row, 0),
        .seed = (uint64_t)sqlite3_column_int64(row, 1),
        .done = sqlite3_column_int(row, 2) != 0,
        .file = dk_sql_column(row, 3),
        .thumbnail = dk_sql_column(row, 4),
        .spritesheet = dk_sql_column(row, 5),
        .recipe = dk_sql_column(row, 6),
        .bytes = sqlite3_column_int64(row, 7),
        .engine_ms = sqlite3_column_double(row, 8),
    };
}

static dk_status read_outputs(dk_sql_link *link, int64_t job, dk_job_record *record,
                              dk_error *err)
{
    sqlite3_stmt *statement;
    const dk_sql_value values[] = {dk_sql_integer(job)};
    int capacity = 0;
    DK_TRY(dk_sql_begin(&statement, link, DK_SQL_OUTPUTS, values, 1, err));
    for (bool row = true; row;) {
        DK_TRY(dk_sql_next(link, statement, &row, err));
        if (!row) {
            break;
        }
        if (record->output_count == capacity) {
            capacity = capacity > 0 ? 2 * capacity : 1;
            record->outputs =
                dk_realloc(record->outputs, (size_t)capacity * sizeof *record->outputs);
        }
        record->outputs[record->output_count++] = output_of(statement);
    }
    return DK_OK;
}

dk_status dk_job_record_read(dk_sql_link *link, sqlite3_stmt *row, dk_job_record *out,
                             dk_error *err)
{
    dk_job_record record = {
        .id = dk_sql_column(row, 1),
        .kind = dk_sql_column(row, 2),
        .owner = dk_sql_column(row, 3),
        .state = (dk_job_state)sqlite3_column_int(row, 4),
        .request = dk_sql_column(row, 5),
        .priority = sqlite3_column_int(row, 6),
        .created_ms = sqlite3_column_int64(row, 7),
        .started_ms = sqlite3_column_int64(row, 8),
        .completed_ms = sqlite3_column_int64(row, 9),
        .expires_ms = sqlite3_column_int64(row, 10),
        .deadline_ms = sqlite3_column_int64(row, 11),
        .attempts = sqlite3_column_int(row, 12),
        .error = dk_sql_column(row, 13),
        .code = dk_sql_column(row, 14),
        .idempotency_key = dk_sql_column(row, 15),
        .body_sha256 = dk_sql_column(row, 16),
    };
    dk_status status = read_outputs(link, sqlite3_column_int64(row, 0), &record, err);
    if (status != DK_OK) {
        dk_job_record_release(&record);
        return status;
    }
    *out = record;
    return DK_OK;
}
