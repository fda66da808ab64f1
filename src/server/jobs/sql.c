/* SQLite, wrapped. */
#include "server/jobs/sql.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "server/jobs/record.h"

enum { BUSY_TIMEOUT_MS = 5000 };

static const char *const statement_texts[] = {
#define DK_SQL_STATEMENT(name, text) text,
#include "server/jobs/statements.def"
#undef DK_SQL_STATEMENT
};

static dk_status status_of(int code, int system_errno)
{
    if (code == SQLITE_FULL || system_errno == ENOSPC || system_errno == EDQUOT) {
        return DK_NO_SPACE;
    }
    switch (code) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return DK_FORMAT;
    case SQLITE_NOMEM:
        return DK_MEMORY;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return DK_BUSY;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_PROTOCOL:
        return DK_IO;
    default:
        return DK_INTERNAL;
    }
}

/* The failure that the last call on the link had. */
static dk_status fail_sql(const dk_sql_link *link, int code, dk_error *err)
{
    int primary = code & 0xff;
    bool about_files = primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN;
    int system_errno = about_files && link->db != NULL ? sqlite3_system_errno(link->db) : 0;
    dk_status status = status_of(primary, system_errno);
    const char *text = link->db != NULL ? sqlite3_errmsg(link->db) : sqlite3_errstr(code);
    return dk_fail(
        err, status, "%s: %s%s%s", link->path, status == DK_NO_SPACE ? "no space left" : text,
        about_files && status != DK_NO_SPACE && system_errno != 0 ? ": " : "",
        about_files && status != DK_NO_SPACE && system_errno != 0 ? strerror(system_errno)
                                                                  : "");
}

dk_status dk_sql_open(dk_sql_link *link, const char *path, bool create, dk_error *err)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
    *link = (dk_sql_link){.path = path};
    pthread_mutex_init(&link->lock, NULL);
    int code =
        sqlite3_open_v2(path, &link->db, flags | (create ? SQLITE_OPEN_CREATE : 0), NULL);
    if (code != SQLITE_OK) {
        dk_status status = fail_sql(link, code, err);
        dk_sql_close(link);
        return status;
    }
    sqlite3_extended_result_codes(link->db, 1);
    sqlite3_busy_timeout(link->db, BUSY_TIMEOUT_MS);
    return DK_OK;
}

void dk_sql_close(dk_sql_link *link)
{
    if (link->path == NULL) {
        return;
    }
    for (size_t i = 0; i < sizeof link->statements / sizeof *link->statements; i++) {
        sqlite3_finalize(link->statements[i]);
    }
    sqlite3_close(link->db);
    pthread_mutex_destroy(&link->lock);
    *link = (dk_sql_link){0};
}

dk_status dk_sql_script(dk_sql_link *link, const char *text, dk_error *err)
{
    int code = sqlite3_exec(link->db, text, NULL, NULL, NULL);
    return code == SQLITE_OK ? DK_OK : fail_sql(link, code, err);
}

dk_status dk_sql_single(dk_sql_link *link, const char *text, char **out, dk_error *err)
{
    sqlite3_stmt *statement = NULL;
    bool row = false;
    int code = sqlite3_prepare_v2(link->db, text, -1, &statement, NULL);
    if (code != SQLITE_OK) {
        return fail_sql(link, code, err);
    }
    dk_status status = dk_sql_next(link, statement, &row, err);
    if (status == DK_OK) {
        char *value = row ? dk_sql_column(statement, 0) : NULL;
        *out = value != NULL ? value : dk_strdup("");
    }
    sqlite3_finalize(statement);
    return status;
}

dk_status dk_sql_begin_text(sqlite3_stmt **out, dk_sql_link *link, int slot, const char *text,
                            const dk_sql_value *values, int count, dk_error *err)
{
    sqlite3_stmt **statement = &link->statements[slot];
    int code = SQLITE_OK;
    if (*statement == NULL) {
        code =
            sqlite3_prepare_v3(link->db, text, -1, SQLITE_PREPARE_PERSISTENT, statement, NULL);
    }
    for (int i = 0; i < count && code == SQLITE_OK; i++) {
        const dk_sql_value *value = &values[i];
        switch (value->type) {
        case SQLITE_INTEGER:
            code = sqlite3_bind_int64(*statement, i + 1, value->integer);
            break;
        case SQLITE_FLOAT:
            code = sqlite3_bind_double(*statement, i + 1, value->real);
            break;
        default: /* NULL binds SQL's NULL */
            code = sqlite3_bind_text(*statement, i + 1, value->text, -1, SQLITE_STATIC);
        }
    }
    if (code != SQLITE_OK) {
        dk_status status = fail_sql(link, code, err);
        dk_sql_end(*statement);
        return status;
    }
    *out = *statement;
    return DK_OK;
}

dk_status dk_sql_begin(sqlite3_stmt **out, dk_sql_link *link, dk_sql which,
                       const dk_sql_value *values, int count, dk_error *err)
{
    return dk_sql_begin_text(out, link, (int)which, statement_texts[which], values, count, err);
}

dk_status dk_sql_next(dk_sql_link *link, sqlite3_stmt *statement, bool *row, dk_error *err)
{
    int code = sqlite3_step(statement);
    *row = code == SQLITE_ROW;
    if (*row) {
        return DK_OK;
    }
    dk_status status = code == SQLITE_DONE ? DK_OK : fail_sql(link, code, err);
    dk_sql_end(statement);
    return status;
}

void dk_sql_end(sqlite3_stmt *statement)
{
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
}

dk_status dk_sql_run(dk_sql_link *link, dk_sql which, const dk_sql_value *values, int count,
                     int *changes, dk_error *err)
{
    sqlite3_stmt *statement;
    bool row = false;
    DK_TRY(dk_sql_begin(&statement, link, which, values, count, err));
    DK_TRY(dk_sql_next(link, statement, &row, err));
    assert(!row);
    if (changes != NULL) {
        *changes = sqlite3_changes(link->db);
    }
    return DK_OK;
}

char *dk_sql_column(sqlite3_stmt *statement, int column)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    return text != NULL ? dk_strdup(text) : NULL;
}
