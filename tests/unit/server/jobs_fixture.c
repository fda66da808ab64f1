/* Stores of jobs for tests. */
#include "jobs_fixture.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "scratch.h"
#include "test.h"

char *store_scratch(void)
{
    char template[] = "/dev/shm/darkroom-test-XXXXXX";
    const char *folder = mkdtemp(template);
    return folder != NULL ? dk_strdup(folder) : scratch_create();
}

char *store_path(const char *folder, const char *name)
{
    char *store = dk_path_join(folder, "store"), *path = dk_path_join(store, name);
    dk_free(store);
    return path;
}

dk_jobs *store_open_with(const char *folder, double keep_results_h, double max_store_gb)
{
    dk_error err;
    dk_jobs *jobs = NULL;
    char *path = dk_path_join(folder, "store");
    const dk_jobs_options options = {
        .path = path, .keep_results_h = keep_results_h, .max_store_gb = max_store_gb};
    assert_ok(dk_jobs_open(&jobs, &options, &err), err);
    dk_free(path);
    return jobs;
}

dk_jobs *store_open(const char *folder)
{
    return store_open_with(folder, 0, 0);
}

dk_job_order order_plain(void)
{
    static const uint64_t seeds[] = {7, UINT64_MAX};
    static const dk_job_input inputs[] = {{"input-image.png", "picture", 7}};
    return (dk_job_order){.kind = "video",
                          .owner = "",
                          .request = "{\"prompt\": \"a lighthouse\"}",
                          .seeds = seeds,
                          .output_count = 2,
                          .inputs = inputs,
                          .input_count = 1};
}

char *store_create(dk_jobs *jobs, const char *kind, const char *owner)
{
    dk_error err;
    char *id = NULL;
    bool again = true;
    dk_job_order order = order_plain();
    order.kind = kind;
    order.owner = owner;
    assert_ok(dk_jobs_create(jobs, &order, &id, &again, &err), err);
    assert_false(again);
    return id;
}

bool store_output(dk_jobs *jobs, const char *id, int index, size_t size)
{
    dk_error err;
    char name[32];
    bool completed = false;
    char *bytes = dk_alloc(size + 1);
    memset(bytes, 'v', size);
    snprintf(name, sizeof name, "output-%d.mp4", index);
    assert_ok(dk_jobs_write(jobs, id, name, bytes, size, &err), err);
    const dk_job_output output = {
        .index = index, .file = name, .bytes = (int64_t)size, .engine_ms = 1.5};
    assert_ok(dk_jobs_output_done(jobs, id, &output, &completed, &err), err);
    dk_free(bytes);
    return completed;
}

void store_complete(dk_jobs *jobs, const char *id, size_t size)
{
    assert_false(store_output(jobs, id, 0, size));
    assert_true(store_output(jobs, id, 1, size));
}

dk_job_state store_state(dk_jobs *jobs, const char *id)
{
    dk_error err;
    dk_job_record record;
    assert_ok(dk_jobs_get(jobs, id, NULL, &record, &err), err);
    dk_job_state state = record.state;
    dk_job_record_release(&record);
    return state;
}

bool store_has(const dk_jobs *jobs, const char *id, const char *name)
{
    char *path = dk_jobs_path(jobs, id, name);
    bool has = dk_path_exists(path);
    dk_free(path);
    return has;
}

int64_t store_sql(const char *folder, const char *text)
{
    sqlite3 *db;
    sqlite3_stmt *statement;
    int64_t number = 0;
    char *path = store_path(folder, "jobs.sqlite");
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    for (const char *rest = text; *rest != '\0';) {
        if (sqlite3_prepare_v2(db, rest, -1, &statement, &rest) != SQLITE_OK) {
            fail_msg("%s: %s", text, sqlite3_errmsg(db));
        }
        int code = sqlite3_step(statement);
        if (code == SQLITE_ROW) {
            number = sqlite3_column_int64(statement, 0);
        } else if (code != SQLITE_DONE && code != SQLITE_MISUSE) {
            fail_msg("%s: %s", text, sqlite3_errmsg(db));
        }
        sqlite3_finalize(statement);
    }
    sqlite3_close(db);
    dk_free(path);
    return number;
}
