/* How a job is taken in: its files, then its rows, in one transaction. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "server/jobs/store.h"

enum { ID_BYTES = 16, KIND_LETTERS = 16 };

/* An order on its way into the database. */
typedef struct incoming {
    const dk_job_order *order;
    const char *owner, *id;
    int64_t bytes;
    char *known; /* the job that has its idempotency key already; owned */
} incoming;

static dk_status check_order(const dk_job_order *order, dk_error *err)
{
    size_t letters = strspn(order->kind, "abcdefghijklmnopqrstuvwxyz");
    if (letters == 0 || letters > KIND_LETTERS || order->kind[letters] != '\0') {
        return dk_fail(err, DK_INVALID, "kind of job '%s', expected 1 to %d small letters",
                       order->kind, (int)KIND_LETTERS);
    }
    if (order->output_count < 1) {
        return dk_fail(err, DK_INVALID, "a job of %d outputs, expected at least one",
                       order->output_count);
    }
    for (int i = 0; i < order->input_count; i++) {
        const char *name = order->inputs[i].name;
        if (!dk_path_is_inside(name, false)) {
            return dk_fail(err, DK_INVALID, "input file '%s', expected a plain file name",
                           name);
        }
    }
    return DK_OK;
}

static dk_status make_id(char **out, const char *kind, dk_error *err)
{
    unsigned char random[ID_BYTES];
    ssize_t got;
    do {
        got = getrandom(random, sizeof random, 0);
    } while (got < 0 && errno == EINTR);
    if (got != (ssize_t)sizeof random) {
        return dk_fail(err, DK_INTERNAL, "no random numbers for the id of a job: %s",
                       strerror(errno));
    }
    dk_string id = DK_STRING_EMPTY;
    dk_string_printf(&id, "%s_", kind);
    for (size_t i = 0; i < sizeof random; i++) {
        dk_string_printf(&id, "%02x", (unsigned)random[i]);
    }
    *out = dk_string_take(&id);
    return DK_OK;
}

static bool same_body(const char *a, const char *b)
{
    return strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0;
}

/* arrival->known receives the job that the idempotency key belongs to, if any. */
static dk_status find_key(dk_sql_link *link, incoming *arrival, dk_error *err)
{
    const dk_job_order *order = arrival->order;
    sqlite3_stmt *statement;
    bool row = false;
    if (order->idempotency_key == NULL) {
        return DK_OK;
    }
    const dk_sql_value values[] = {dk_sql_text(arrival->owner),
                                   dk_sql_text(order->idempotency_key)};
    DK_TRY(dk_sql_begin(&statement, link, DK_SQL_FIND_KEY, values, 2, err));
    DK_TRY(dk_sql_next(link, statement, &row, err));
    if (!row) {
        return DK_OK;
    }
    char *known = dk_sql_column(statement, 0), *body = dk_sql_column(statement, 1);
    dk_status status = DK_OK;
    dk_sql_end(statement);
    if (same_body(body, order->body_sha256)) {
        arrival->known = known;
        known = NULL;
    } else {
        status = dk_fail(err, DK_MISMATCH,
                         "the idempotency key '%s' came before with another request (job %s); "
                         "expected a new key for a new request",
                         order->idempotency_key, known);
    }
    dk_free(body);
    dk_free(known);
    return status;
}

static dk_status insert(dk_jobs *jobs, void *context, dk_error *err)
{
    incoming *arrival = context;
    const dk_job_order *order = arrival->order;
    dk_sql_link *link = &jobs->writer;
    DK_TRY(find_key(link, arrival, err));
    if (arrival->known != NULL) {
        return DK_OK;
    }
    const dk_sql_value job[] = {
        dk_sql_text(arrival->id),           dk_sql_text(order->kind),
        dk_sql_text(arrival->owner),        dk_sql_text(order->request),
        dk_sql_integer(order->priority),    dk_sql_integer(dk_jobs_now_ms()),
        dk_sql_integer(order->deadline_ms), dk_sql_text(order->idempotency_key),
        dk_sql_text(order->body_sha256),    dk_sql_integer(arrival->bytes)};
    DK_TRY(dk_sql_run(link, DK_SQL_INSERT_JOB, job, 10, NULL, err));
    int64_t seq = sqlite3_last_insert_rowid(link->db);
    for (int i = 0; i < order->output_count; i++) {
        const dk_sql_value output[] = {dk_sql_integer(seq), dk_sql_integer(i),
                                       dk_sql_integer((int64_t)order->seeds[i])};
        DK_TRY(dk_sql_run(link, DK_SQL_INSERT_OUTPUT, output, 3, NULL, err));
    }
    return DK_OK;
}

/* A request that came before is answered without writing anything. */
static dk_status look_before(dk_jobs *jobs, incoming *arrival, dk_error *err)
{
    if (arrival->order->idempotency_key == NULL) {
        return DK_OK;
    }
    DK_TRY(dk_jobs_read_begin(jobs, err));
    dk_status status = find_key(&jobs->reader, arrival, err);
    dk_jobs_read_end(jobs);
    return status;
}

static dk_status store(dk_jobs *jobs, incoming *arrival, dk_error *err)
{
    const dk_job_order *order = arrival->order;
    DK_TRY(dk_jobs_folder_make(jobs, arrival->id, order->inputs, order->input_count, err));
    dk_status status = dk_jobs_transaction(jobs, insert, arrival, false, err);
    if (status == DK_NO_SPACE) {
        status = dk_fail(err, status, "%s: no space left for a job of %zu bytes",
                         jobs->database, strlen(order->request) + (size_t)arrival->bytes);
    }
    if (status != DK_OK || arrival->known != NULL) {
        dk_jobs_folder_remove(jobs, arrival->id);
    }
    return status;
}

dk_status dk_jobs_create(dk_jobs *jobs, const dk_job_order *order, char **id, bool *again,
                         dk_error *err)
{
    char *name = NULL;
    incoming arrival = {.order = order, .owner = order->owner != NULL ? order->owner : ""};
    DK_TRY(check_order(order, err));
    for (int i = 0; i < order->input_count; i++) {
        arrival.bytes += (int64_t)order->inputs[i].size;
    }
    DK_TRY(look_before(jobs, &arrival, err));
    dk_status status = DK_OK;
    if (arrival.known == NULL) {
        DK_TRY_DONE(make_id(&name, order->kind, err));
        arrival.id = name;
        DK_TRY_DONE(store(jobs, &arrival, err));
    }
    *again = arrival.known != NULL;
    *id = *again ? arrival.known : name;
    name = *again ? name : NULL;
    arrival.known = NULL;
done:
    dk_free(arrival.known);
    dk_free(name);
    return status;
}
