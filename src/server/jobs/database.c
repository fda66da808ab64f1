/* The database: what is accepted as one, its schema, and the way from older schemas. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "server/jobs/store.h"

enum { APPLICATION_ID = 0x444b4a53 }; /* "DKJS": tells our databases from others */

/* Migration i leads from schema i to i + 1; a line is never changed once it was released.
   Creation order is the order of seq: a clock may step back, row numbers do not. */
static const char *const migrations[] = {
    "CREATE TABLE jobs ("
    " seq INTEGER PRIMARY KEY,"
    " id TEXT NOT NULL UNIQUE,"
    " kind TEXT NOT NULL,"
    " owner TEXT NOT NULL,"
    " state INTEGER NOT NULL,"
    " request TEXT NOT NULL,"
    " priority INTEGER NOT NULL,"
    " created_ms INTEGER NOT NULL,"
    " started_ms INTEGER NOT NULL DEFAULT 0,"
    " completed_ms INTEGER NOT NULL DEFAULT 0,"
    " expires_ms INTEGER NOT NULL DEFAULT 0,"
    " deadline_ms INTEGER NOT NULL,"
    " attempts INTEGER NOT NULL DEFAULT 0,"
    " error TEXT,"
    " code TEXT,"
    " idempotency_key TEXT,"
    " body_sha256 TEXT,"
    " bytes INTEGER NOT NULL);" /* of inputs and of the files of outputs that are done */
    "CREATE TABLE outputs ("
    " job INTEGER NOT NULL REFERENCES jobs(seq) ON DELETE CASCADE,"
    " position INTEGER NOT NULL,"
    " seed INTEGER NOT NULL,"
    " done INTEGER NOT NULL DEFAULT 0,"
    " file TEXT,"
    " thumbnail TEXT,"
    " spritesheet TEXT,"
    " recipe TEXT,"
    " bytes INTEGER NOT NULL DEFAULT 0,"
    " total_bytes INTEGER NOT NULL DEFAULT 0," /* with thumbnail and sprite sheet */
    " engine_ms REAL NOT NULL DEFAULT 0,"
    " PRIMARY KEY (job, position)) WITHOUT ROWID;"
    "CREATE UNIQUE INDEX jobs_key ON jobs(owner, idempotency_key)"
    " WHERE idempotency_key IS NOT NULL;"
    "CREATE INDEX jobs_kind ON jobs(kind);"
    "CREATE INDEX jobs_owner ON jobs(owner);"
    "CREATE INDEX jobs_owner_kind ON jobs(owner, kind);"
    "CREATE INDEX jobs_unfinished ON jobs(seq) WHERE state < 2;"
    "CREATE INDEX jobs_finished ON jobs(completed_ms) WHERE state >= 2;"
    "CREATE INDEX jobs_usage ON jobs(state, bytes);",
};

enum { SCHEMA = sizeof migrations / sizeof *migrations };

static dk_status read_number(dk_sql_link *link, const char *text, int64_t *out, dk_error *err)
{
    char *value = NULL;
    DK_TRY(dk_sql_single(link, text, &value, err));
    *out = strtoll(value, NULL, 10);
    dk_free(value);
    return DK_OK;
}

static dk_status expect(dk_sql_link *link, const char *text, const char *expected,
                        dk_status failure, const char *what, dk_error *err)
{
    char *value = NULL;
    dk_status status = dk_sql_single(link, text, &value, err);
    if (status == DK_OK && strcmp(value, expected) != 0) {
        status = dk_fail(err, failure, "%s: %s: %s", link->path, what, value);
    }
    dk_free(value);
    return status;
}

/* Nothing has been written when this fails. *version: of the schema; 0: an empty file. */
static dk_status check(dk_sql_link *link, int64_t *version, dk_error *err)
{
    int64_t application = 0, tables = 0;
    DK_TRY(expect(link, "PRAGMA quick_check(1)", "ok", DK_FORMAT,
                  "the database is damaged and left as it is; expected a sound one, or none, "
                  "for a new store",
                  err));
    DK_TRY(read_number(link, "PRAGMA user_version", version, err));
    DK_TRY(read_number(link, "PRAGMA application_id", &application, err));
    DK_TRY(read_number(link, "SELECT count(*) FROM sqlite_schema", &tables, err));
    if (application != (*version > 0 ? APPLICATION_ID : 0) || (*version == 0 && tables > 0)) {
        return dk_fail(err, DK_FORMAT,
                       "%s: a database of something else, expected a store of jobs",
                       link->path);
    }
    if (*version > SCHEMA) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: written by a newer version (schema %lld), expected schema 1 to %d",
                       link->path, (long long)*version, (int)SCHEMA);
    }
    return DK_OK;
}

static dk_status migrate(dk_sql_link *link, int64_t from, dk_error *err)
{
    dk_status status = DK_OK;
    for (int64_t i = from; i < SCHEMA && status == DK_OK; i++) {
        dk_string script = DK_STRING_EMPTY;
        dk_string_printf(&script,
                         "BEGIN IMMEDIATE; %s PRAGMA application_id = %d; "
                         "PRAGMA user_version = %lld; COMMIT",
                         migrations[i], (int)APPLICATION_ID, (long long)i + 1);
        status = dk_sql_script(link, dk_string_text(&script), err);
        dk_string_release(&script);
        if (status != DK_OK && !sqlite3_get_autocommit(link->db)) {
            dk_status undone = dk_sql_script(link, "ROLLBACK", NULL);
            (void)undone; /* the link is closed next, which undoes it too */
        }
    }
    return status;
}

/* The log of changes keeps at most this much when it starts over. */
#define WAL_BYTES "16777216"

static dk_status configure(dk_sql_link *link, dk_error *err)
{
    DK_TRY(expect(link, "PRAGMA journal_mode = WAL", "wal", DK_UNSUPPORTED,
                  "the file system has no shared memory for SQLite's WAL; the journal would be",
                  err));
    return dk_sql_script(link,
                         "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
                         "PRAGMA journal_size_limit = " WAL_BYTES,
                         err);
}

enum { LOG_PAGES = 8000 }; /* of 4 KiB */

static dk_status open_writer(dk_jobs *jobs, bool *fresh, dk_error *err)
{
    dk_sql_link *link = &jobs->writer;
    int64_t version = 0;
    DK_TRY(dk_sql_open(link, jobs->database, true, err));
    /* A damaged database keeps its log: closing must not write into it. */
    sqlite3_db_config(link->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_db_config(link->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    DK_TRY(check(link, &version, err));
    sqlite3_db_config(link->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    *fresh = version == 0;
    DK_TRY(configure(link, err));
    /* The keeper moves the log's pages into the database; the writer does only when it lags. */
    sqlite3_wal_autocheckpoint(link->db, LOG_PAGES);
    return migrate(link, version, err);
}

dk_status dk_jobs_database_open(dk_jobs *jobs, bool *fresh, dk_error *err)
{
    DK_TRY(open_writer(jobs, fresh, err));
    DK_TRY(dk_sql_open(&jobs->keeper, jobs->database, false, err));
    DK_TRY(dk_sql_open(&jobs->reader, jobs->database, false, err));
    return dk_sql_script(&jobs->reader, "PRAGMA query_only = ON", err);
}
