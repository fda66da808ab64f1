/* SQLite as the job store uses it: one connection with its mutex and its statements, which are
   compiled once. Who runs statements holds the link's lock. Failures of all functions: a full
   disk is DK_NO_SPACE, a damaged file DK_FORMAT, other trouble with files DK_IO. */
#ifndef DK_SERVER_JOBS_SQL_H
#define DK_SERVER_JOBS_SQL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef enum dk_sql {
#define DK_SQL_STATEMENT(name, text) DK_SQL_##name,
#include "server/jobs/statements.def"
#undef DK_SQL_STATEMENT
    DK_SQL_COUNT
} dk_sql;

enum { DK_SQL_LISTS = 64 }; /* statements of dk_jobs_list: one per combination of its filters */

typedef struct dk_sql_link {
    sqlite3 *db;      /* NULL: not open */
    const char *path; /* borrowed: of the database */
    pthread_mutex_t lock;
    sqlite3_stmt *statements[DK_SQL_COUNT + DK_SQL_LISTS]; /* NULL: not compiled yet */
} dk_sql_link;

/* What a parameter of a statement is bound to; text is borrowed while the statement runs. */
typedef struct dk_sql_value {
    int type; /* SQLITE_INTEGER, SQLITE_FLOAT, SQLITE_TEXT */
    int64_t integer;
    double real;
    const char *text; /* NULL: SQL's NULL */
} dk_sql_value;

static inline dk_sql_value dk_sql_integer(int64_t value)
{
    return (dk_sql_value){.type = SQLITE_INTEGER, .integer = value};
}
static inline dk_sql_value dk_sql_real(double value)
{
    return (dk_sql_value){.type = SQLITE_FLOAT, .real = value};
}
static inline dk_sql_value dk_sql_text(const char *text)
{
    return (dk_sql_value){.type = SQLITE_TEXT, .text = text};
}

/* Opens the database for reading and writing; it is made when `create` is set. On failure the
   link is closed. The path is borrowed. */
DK_MUST_USE dk_status dk_sql_open(dk_sql_link *link, const char *path, bool create,
                                  dk_error *err);
void dk_sql_close(dk_sql_link *link); /* a link that is not open is fine */

/* Runs statements without parameters and results: pragmas, schema. */
DK_MUST_USE dk_status dk_sql_script(dk_sql_link *link, const char *text, dk_error *err);
/* The first column of the first row, owned; "" when there is none. */
DK_MUST_USE dk_status dk_sql_single(dk_sql_link *link, const char *text, char **out,
                                    dk_error *err);

/* The statement of a slot, compiled from `text` when it is not yet, with values bound. It must
   be ended by dk_sql_end (or by dk_sql_next when that finds no further row). */
DK_MUST_USE dk_status dk_sql_begin_text(sqlite3_stmt **out, dk_sql_link *link, int slot,
                                        const char *text, const dk_sql_value *values, int count,
                                        dk_error *err);
/* The same for a statement of statements.def. */
DK_MUST_USE dk_status dk_sql_begin(sqlite3_stmt **out, dk_sql_link *link, dk_sql which,
                                   const dk_sql_value *values, int count, dk_error *err);
/* Steps to the next row: *row is false, and the statement ended, when there is none or on
   failure. */
DK_MUST_USE dk_status dk_sql_next(dk_sql_link *link, sqlite3_stmt *statement, bool *row,
                                  dk_error *err);
void dk_sql_end(sqlite3_stmt *statement);

/* Runs a statement without results; *changes (may be NULL) receives how many rows it changed.
 */
DK_MUST_USE dk_status dk_sql_run(dk_sql_link *link, dk_sql which, const dk_sql_value *values,
                                 int count, int *changes, dk_error *err);

char *dk_sql_column(sqlite3_stmt *statement, int column); /* text, owned; NULL for NULL */

#endif
