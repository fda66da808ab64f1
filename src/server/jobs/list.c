/* Jobs, read. */
#include "base/alloc.h"
#include "base/string.h"
#include "server/jobs/record.h"
#include "server/jobs/store.h"

/* Bits of a list's filters: together the slot of its statement. */
enum { BY_KIND = 1, BY_OWNER = 2, UNFINISHED = 4, ASCENDING = 8, AFTER = 16, FINISHED = 32 };

dk_status dk_jobs_get(dk_jobs *jobs, const char *id, const char *owner, dk_job_record *out,
                      dk_error *err)
{
    const dk_sql_value values[] = {dk_sql_text(id), dk_sql_text(owner)};
    dk_sql_link *link = &jobs->reader;
    sqlite3_stmt *statement;
    bool row = false;
    DK_TRY(dk_jobs_read_begin(jobs, err));
    dk_status status = DK_OK;
    DK_TRY_DONE(dk_sql_begin(&statement, link, DK_SQL_GET, values, 2, err));
    DK_TRY_DONE(dk_sql_next(link, statement, &row, err));
    if (row) {
        status = dk_job_record_read(link, statement, out, err);
        dk_sql_end(statement);
    } else {
        status = dk_fail(err, DK_NOT_FOUND, "there is no job '%s'", id);
    }
done:
    dk_jobs_read_end(jobs);
    return status;
}

static int filters_of(const dk_jobs_query *query)
{
    return (query->kind != NULL ? BY_KIND : 0) | (query->owner != NULL ? BY_OWNER : 0) |
           (query->unfinished ? UNFINISHED : 0) | (query->ascending ? ASCENDING : 0) |
           (query->after != NULL ? AFTER : 0) | (query->finished ? FINISHED : 0);
}

/* Every list walks an index in the order of seq and ends with its limit: named, because the
   planner knows nothing about how many jobs have ended. */
static const char *index_of(int filters)
{
    if ((filters & UNFINISHED) != 0) {
        return " INDEXED BY jobs_unfinished";
    }
    switch (filters & (BY_KIND | BY_OWNER)) {
    case BY_KIND:
        return " INDEXED BY jobs_kind";
    case BY_OWNER:
        return " INDEXED BY jobs_owner";
    case BY_KIND | BY_OWNER:
        return " INDEXED BY jobs_owner_kind";
    default:
        return " NOT INDEXED"; /* the table itself is in that order */
    }
}

static char *list_text(int filters)
{
    dk_string text = DK_STRING_EMPTY;
    bool ascending = (filters & ASCENDING) != 0;
    dk_string_printf(&text, "SELECT " DK_JOB_COLUMNS " FROM jobs%s WHERE 1", index_of(filters));
    dk_string_puts(&text, (filters & BY_KIND) != 0 ? " AND kind = ?1" : "");
    dk_string_puts(&text, (filters & BY_OWNER) != 0 ? " AND owner = ?2" : "");
    dk_string_puts(&text, (filters & UNFINISHED) != 0 ? " AND state < 2" : "");
    dk_string_puts(&text, (filters & FINISHED) != 0 ? " AND state >= 2" : "");
    if ((filters & AFTER) != 0) {
        dk_string_puts(&text, ascending ? " AND seq > ?3" : " AND seq < ?3");
    }
    dk_string_printf(&text, " ORDER BY seq %s LIMIT ?4", ascending ? "ASC" : "DESC");
    return dk_string_take(&text);
}

static dk_status begin_list(sqlite3_stmt **out, dk_sql_link *link, const dk_jobs_query *query,
                            int64_t after, dk_error *err)
{
    int filters = filters_of(query);
    const dk_sql_value values[] = {dk_sql_text(query->kind), dk_sql_text(query->owner),
                                   dk_sql_integer(after),
                                   dk_sql_integer((int64_t)query->limit + 1)};
    char *text = list_text(filters);
    dk_status status =
        dk_sql_begin_text(out, link, (int)DK_SQL_COUNT + filters, text, values, 4, err);
    dk_free(text);
    return status;
}

static dk_status read_list(dk_sql_link *link, const dk_jobs_query *query, dk_job_list *list,
                           dk_error *err)
{
    sqlite3_stmt *statement;
    dk_job_row after = {0};
    bool row = true;
    int capacity = 0;
    if (query->after != NULL) {
        DK_TRY(dk_jobs_find(link, query->after, query->owner, &after, err));
    }
    DK_TRY(begin_list(&statement, link, query, after.seq, err));
    for (;;) {
        DK_TRY(dk_sql_next(link, statement, &row, err));
        if (!row) {
            return DK_OK;
        }
        if (list->count == query->limit) {
            list->more = true;
            dk_sql_end(statement);
            return DK_OK;
        }
        if (list->count == capacity) {
            capacity = capacity > 0 ? 2 * capacity : 16;
            list->records = dk_realloc(list->records, (size_t)capacity * sizeof *list->records);
        }
        dk_status status =
            dk_job_record_read(link, statement, &list->records[list->count], err);
        if (status != DK_OK) {
            dk_sql_end(statement);
            return status;
        }
        list->count++;
    }
}

dk_status dk_jobs_list(dk_jobs *jobs, const dk_jobs_query *query, dk_job_list *out,
                       dk_error *err)
{
    dk_job_list list = {0};
    if (query->limit < 1) {
        return dk_fail(err, DK_INVALID, "a list of %d jobs, expected at least one",
                       query->limit);
    }
    DK_TRY(dk_jobs_read_begin(jobs, err));
    dk_status status = read_list(&jobs->reader, query, &list, err);
    dk_jobs_read_end(jobs);
    if (status != DK_OK) {
        dk_job_list_release(&list);
        return status;
    }
    *out = list;
    return DK_OK;
}

void dk_job_list_release(dk_job_list *list)
{
    for (int i = 0; i < list->count; i++) {
        dk_job_record_release(&list->records[i]);
    }
    dk_free(list->records);
    *list = (dk_job_list){0};
}
