/* Models by name against a real server on this machine: what arrives, what is left behind when
   something goes wrong, and what the user is told. */
#define _XOPEN_SOURCE 700
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/string.h"
#include "hub/hub.h"
#include "hub_fixture.h"

/* The files that the hub's models need, and how many go over the store. */
static const char *const needed[] = {
    "image_processor/preprocessor_config.json",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/empty.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/spiece.model",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
    HUB_SHARD,
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
};
enum { NEEDED = sizeof needed / sizeof needed[0], LARGE_FILES = 6, EMPTY_FILES = 1 };

/* One cache with its options and the outcome of the latest call. */
typedef struct run {
    const hub_fixture *hub;
    char *home; /* <fixture folder>/<model> */
    char *cache;
    char *model; /* org/<name> */
    char *root;  /* <cache>/models--org--<name> */
    char *snapshot;
    dk_hub_options options;
    dk_status status;
    dk_error error;
    char *folder;
} run;

static run begin(void **state, const char *name)
{
    run r = {.hub = *state};
    dk_string text = DK_STRING_EMPTY;
    r.home = dk_path_join(r.hub->folder, name);
    r.cache = dk_path_join(r.home, "deep/below/hub");
    dk_string_printf(&text, "org/%s", name);
    r.model = dk_string_take(&text);
    dk_string_printf(&text, "%s/models--org--%s", r.cache, name);
    r.root = dk_string_take(&text);
    r.snapshot = dk_path_join(r.root, "snapshots/" HUB_COMMIT);
    r.options = (dk_hub_options){.cache_folder = r.cache,
                                 .endpoint = r.hub->endpoint,
                                 .retry_base_ms = 2,
                                 .stall_timeout_s = 5};
    return r;
}

static void resolve(run *r)
{
    dk_free(r->folder);
    r->folder = NULL;
    r->error = (dk_error){0};
    r->status = dk_hub_resolve(&r->folder, r->model, &r->options, &r->error);
}

static void end(run *r)
{
    dk_free(r->folder);
    dk_free(r->snapshot);
    dk_free(r->root);
    dk_free(r->model);
    dk_free(r->cache);
    dk_free(r->home);
}

/* Everything needed is there, nothing else, and nothing is left half done. */
static void assert_complete(run *r)
{
    if (r->status != DK_OK) {
        fail_msg("%s: %s", r->model, r->error.message);
    }
    assert_string_equal(r->folder, r->snapshot);
    for (size_t i = 0; i < NEEDED; i++) {
        char *path = dk_path_join(r->folder, needed[i]);
        if (!dk_path_exists(path)) {
            fail_msg("%s is missing", path);
        }
        dk_free(path);
    }
    assert_int_equal(count_files(r->folder), NEEDED);
    char *blobs = dk_path_join(r->root, "blobs");
    assert_int_equal(count_files(blobs), NEEDED);
    dk_free(blobs);
}

/* The call failed with this status and a message that contains every one of the texts. */
static void assert_failed(const run *r, dk_status status, const char *first, const char *second)
{
    if (r->status != status || strstr(r->error.message, first) == NULL ||
        strstr(r->error.message, second) == NULL || r->folder != NULL) {
        fail_msg("%s: status %d, expected %d with '%s' and '%s': %s", r->model, (int)r->status,
                 (int)status, first, second, r->error.message);
    }
    assert_null(strstr(r->error.message, HUB_TOKEN));
}

static void fails(void **state, const char *name, dk_status status, const char *first,
                  const char *second)
{
    run r = begin(state, name);
    resolve(&r);
    assert_failed(&r, status, first, second);
    end(&r);
}

/* The size of the shard's .incomplete file; -1 when there is none. */
static long partial_size(const run *r, char **path)
{
    dk_string text = DK_STRING_EMPTY;
    dk_string_printf(&text, "ls %s/blobs/*.incomplete 2>/dev/null", r->root);
    FILE *list = popen(text.data, "r");
    char line[1024] = "";
    char *got = fgets(line, sizeof line, list);
    pclose(list);
    dk_string_release(&text);
    struct stat info;
    line[strcspn(line, "\n")] = '\0';
    if (got == NULL || stat(line, &info) != 0) {
        return -1;
    }
    if (path != NULL) {
        *path = dk_strdup(line);
    }
    return (long)info.st_size;
}

/* Requests to the store for the model, ranged or not. */
static int store_requests(const run *r, const char *text)
{
    dk_string where = DK_STRING_EMPTY;
    dk_string_printf(&where, "store /%s/", r->model + strlen("org/"));
    int count = hub_count(r->hub, where.data, text);
    dk_string_release(&where);
    return count;
}

static int all_requests(const run *r)
{
    dk_string where = DK_STRING_EMPTY;
    dk_string_printf(&where, "/%s/", r->model);
    int count = hub_count(r->hub, where.data, "hub ");
    dk_string_release(&where);
    return count;
}

/* ---- the cache ---- */

/* A link's target is relative, and the blob's name is the checksum of what it leads to. */
static void assert_link(const run *r, const char *name, const char *up)
{
    char target[256] = "";
    char *path = dk_path_join(r->snapshot, name);
    ssize_t length = readlink(path, target, sizeof target - 1);
    assert_true(length > 0);
    dk_string prefix = DK_STRING_EMPTY;
    dk_string_printf(&prefix, "%sblobs/", up);
    assert_memory_equal(target, prefix.data, prefix.length);
    const char *etag = target + prefix.length;
    if (strlen(etag) == 64) {
        char sum[DK_SHA256_HEX_BYTES];
        dk_error err = {0};
        assert_ok(dk_sha256_file(sum, path, &err), err);
        assert_string_equal(sum, etag);
    } else {
        assert_int_equal(strlen(etag), 40);
    }
    dk_string_release(&prefix);
    dk_free(path);
}

static void assert_ref(const run *r, const char *name, const char *commit)
{
    char *text;
    size_t size;
    dk_error err = {0};
    char *path = dk_path_join(r->root, name);
    assert_ok(dk_file_read(&text, &size, path, 4096, &err), err);
    assert_string_equal(text, commit);
    dk_free(text);
    dk_free(path);
}

static void test_download(void **state)
{
    run r = begin(state, "plain");
    r.options.token = HUB_TOKEN;
    resolve(&r);
    assert_complete(&r);
    assert_ref(&r, "refs/main", HUB_COMMIT);
    assert_link(&r, "model_index.json", "../../");
    assert_link(&r, "vae/config.json", "../../../");
    assert_link(&r, HUB_SHARD, "../../../");
    /* One listing, one request for each file but the empty one; each large one once more. */
    assert_int_equal(all_requests(&r), 1 + NEEDED - EMPTY_FILES);
    assert_int_equal(store_requests(&r, ""), LARGE_FILES);
    assert_int_equal(hub_count(r.hub, "/org/plain/", "auth=Bearer " HUB_TOKEN),
                     all_requests(&r));
    assert_int_equal(store_requests(&r, "auth=-"), LARGE_FILES);

    /* Now it is answered from the cache; a server is not needed. */
    int before = all_requests(&r);
    resolve(&r);
    assert_complete(&r);
    r.options.offline = true;
    resolve(&r);
    assert_complete(&r);
    assert_int_equal(all_requests(&r), before);

    /* The snapshot is a folder like any other. */
    run by_path = begin(state, "plain");
    dk_free(by_path.model);
    by_path.model = dk_strdup(r.folder);
    resolve(&by_path);
    assert_complete(&by_path);
    char *link = dk_path_join(r.home, "link");
    assert_int_equal(symlink(r.folder, link), 0);
    dk_free(by_path.model);
    by_path.model = dk_strdup(link);
    resolve(&by_path);
    assert_string_equal(by_path.folder, link);
    dk_free(link);
    end(&by_path);
    end(&r);
}

/* What somebody removed from the cache is fetched again, and that alone. */
static void test_repair(void **state)
{
    run r = begin(state, "renamed");
    resolve(&r);
    assert_complete(&r);
    int before = all_requests(&r);
    char *shard = dk_path_join(r.snapshot, HUB_SHARD);
    char blob[4096];
    assert_non_null(realpath(shard, blob));
    assert_int_equal(unlink(blob), 0);
    r.options.offline = true;
    resolve(&r);
    assert_failed(&r, DK_NOT_FOUND, HUB_SHARD " is missing", "HF_HUB_OFFLINE");
    r.options.offline = false;
    resolve(&r);
    assert_complete(&r);
    assert_int_equal(all_requests(&r), before + 2);
    dk_free(shard);
    end(&r);
}

static void test_revisions(void **state)
{
    run r = begin(state, "plain");
    dk_free(r.cache);
    r.cache = dk_path_join(r.home, "other");
    r.options.cache_folder = r.cache;
    dk_free(r.root);
    r.root = dk_path_join(r.cache, "models--org--plain");
    dk_free(r.snapshot);
    r.snapshot = dk_path_join(r.root, "snapshots/" HUB_COMMIT);
    r.options.revision = HUB_COMMIT;
    resolve(&r);
    assert_complete(&r);
    char *refs = dk_path_join(r.root, "refs");
    assert_false(dk_path_exists(refs));
    dk_free(refs);
    r.options.revision = "refs/pr/1";
    resolve(&r);
    assert_complete(&r);
    assert_ref(&r, "refs/refs/pr/1", HUB_COMMIT);
    r.options.revision = "none";
    resolve(&r);
    assert_failed(&r, DK_NOT_FOUND, "revision 'none'", "404");
    static const char *const bad[] = {"", "../main", "a/../b", "/main", "a b", "a\nb", "x?y=z"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        r.options.revision = bad[i];
        resolve(&r);
        assert_failed(&r, DK_INVALID, "revision", "branch");
    }
    end(&r);
}

static void test_offline(void **state)
{
    run r = begin(state, "flaky");
    r.options.offline = true;
    resolve(&r);
    assert_failed(&r, DK_NOT_FOUND, "org/flaky", "HF_HUB_OFFLINE");
    assert_int_equal(all_requests(&r), 0);
    assert_false(dk_path_exists(r.home));
    end(&r);
}

static void test_names(void **state)
{
    static const struct {
        const char *model;
        dk_status status;
    } cases[] = {
        {"/no/such/folder", DK_NOT_FOUND},
        {"./absent", DK_NOT_FOUND},
        {"../absent/x", DK_NOT_FOUND},
        {"tests/test.h", DK_INVALID},
        {"", DK_INVALID},
        {"one", DK_INVALID},
        {"a/b/c", DK_INVALID},
        {"a/..", DK_INVALID},
        {"org/a--b", DK_INVALID},
        {"org/-x", DK_INVALID},
        {"org/a b", DK_INVALID},
        {"org/a?b", DK_INVALID},
        {"org/a%2e", DK_INVALID},
        {"org/a\r\nX: y", DK_INVALID},
        {"https://host/x", DK_INVALID},
        {"org/\xc3\xa4", DK_INVALID},
    };
    run r = begin(state, "plain");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dk_free(r.model);
        r.model = dk_strdup(cases[i].model);
        resolve(&r);
        assert_failed(&r, cases[i].status, "model '", "accepted are");
    }
    end(&r);
}

static void test_bad_options(void **state)
{
    run r = begin(state, "unavailable");
    r.options.endpoint = "ftp://127.0.0.1";
    resolve(&r);
    assert_failed(&r, DK_INVALID, "ftp://127.0.0.1", "expected http");
    r.options.endpoint = "http://127.0.0.1:1"; /* nobody listens there */
    resolve(&r);
    assert_failed(&r, DK_NETWORK, "org/unavailable", "127.0.0.1:1");
    r.options.endpoint = r.hub->endpoint;
    r.options.token = "hf_secret\r\nX-Evil: 1";
    resolve(&r);
    assert_failed(&r, DK_INVALID, "HF_TOKEN", "");
    r.options.token = NULL;
    r.options.cache_folder = NULL;
    resolve(&r);
    assert_failed(&r, DK_INVALID, "HF_HOME", "");
    end(&r);
    r = begin(state, "drop");
    r.options.cache_folder = "tests/test.h/below";
    resolve(&r);
    assert_int_not_equal(r.status, DK_OK);
    assert_non_null(strstr(r.error.message, "tests/test.h"));
    end(&r);
}

/* ---- refusals ---- */

static void test_denied(void **state)
{
    run r = begin(state, "gated");
    resolve(&r);
    assert_failed(&r, DK_DENIED, "gated", "HF_TOKEN");
    r.options.token = "hf_of_somebody_else";
    resolve(&r);
    assert_failed(&r, DK_DENIED, "/org/gated", "accept its terms");
    assert_null(strstr(r.error.message, r.options.token));
    r.options.token = HUB_TOKEN;
    resolve(&r);
    assert_complete(&r);
    end(&r);
    r = begin(state, "private");
    resolve(&r);
    assert_failed(&r, DK_DENIED, "set HF_TOKEN", "401");
    r.options.token = HUB_TOKEN;
    resolve(&r);
    assert_complete(&r);
    end(&r);
}

static void test_not_found(void **state)
{
    fails(state, "absent", DK_NOT_FOUND, "org/absent", "accepted are");
    fails(state, "lost", DK_NOT_FOUND, HUB_SHARD, "404");
}

static void test_busy(void **state)
{
    run r = begin(state, "limited");
    double start_ms = dk_now_ms();
    resolve(&r);
    assert_complete(&r);
    assert_true(dk_now_ms() - start_ms >= 1000); /* Retry-After: 1 */
    end(&r);
    fails(state, "busy", DK_NETWORK, "429", "100000 s");
    fails(state, "unavailable", DK_NETWORK, "503", "several attempts");
    r = begin(state, "flaky");
    resolve(&r);
    assert_complete(&r);
    end(&r);
    r = begin(state, "expired"); /* the store refuses a link once: the hub gives another */
    resolve(&r);
    assert_complete(&r);
    end(&r);
}

/* ---- breaks ---- */

static void test_resume_within_a_run(void **state)
{
    run r = begin(state, "drop");
    resolve(&r);
    assert_complete(&r);
    assert_int_equal(store_requests(&r, "range=bytes="), 2);
    assert_link(&r, HUB_SHARD, "../../../");
    end(&r);
    r = begin(state, "norange"); /* the server begins again each time */
    resolve(&r);
    assert_complete(&r);
    assert_link(&r, HUB_SHARD, "../../../");
    end(&r);
    fails(state, "wrongrange", DK_NETWORK, HUB_SHARD, "another range");
}

static void test_resume_across_runs(void **state)
{
    run r = begin(state, "cut");
    resolve(&r);
    assert_failed(&r, DK_NETWORK, HUB_SHARD, "several attempts");
    long held = partial_size(&r, NULL);
    assert_true(held > 0);
    resolve(&r);
    assert_complete(&r);
    char range[64];
    snprintf(range, sizeof range, "range=bytes=%ld-", held);
    assert_true(store_requests(&r, range) >= 1);
    assert_link(&r, HUB_SHARD, "../../../");
    end(&r);
}

/* A part that is not of this file costs one more transfer, not the download. */
static void test_spoilt_part(void **state)
{
    run r = begin(state, "spoilt");
    resolve(&r);
    assert_int_equal(r.status, DK_NETWORK);
    char *path = NULL;
    assert_true(partial_size(&r, &path) > 0);
    FILE *file = fopen(path, "r+");
    fputs("other bytes", file);
    fclose(file);
    dk_free(path);
    resolve(&r);
    assert_complete(&r);
    assert_link(&r, HUB_SHARD, "../../../");
    end(&r);
}

static void test_stall(void **state)
{
    run r = begin(state, "stall");
    r.options.stall_timeout_s = 1;
    resolve(&r);
    assert_complete(&r);
    assert_int_equal(store_requests(&r, "range=bytes="), 1);
    end(&r);
}

typedef struct watch {
    atomic_bool cancel;
    bool stop_in_shard;
    int calls;
    uint64_t all_done, all_total;
} watch;

static void on_progress(void *context, const char *file, uint64_t done, uint64_t total,
                        uint64_t all_done, uint64_t all_total)
{
    watch *w = context;
    assert_true(done <= total);
    assert_true(all_done <= all_total || all_total == 0);
    assert_true(all_done >= w->all_done || w->all_total != all_total);
    w->all_done = all_done;
    w->all_total = all_total;
    w->calls++;
    if (w->stop_in_shard && strcmp(file, HUB_SHARD) == 0 && done > 0) {
        atomic_store(&w->cancel, true);
    }
}

static void test_cancel(void **state)
{
    watch w = {.stop_in_shard = true};
    run r = begin(state, "slow");
    r.options.progress = on_progress;
    r.options.progress_context = &w;
    r.options.cancel = &w.cancel;
    resolve(&r);
    assert_failed(&r, DK_CANCELLED, HUB_SHARD, "cancelled");
    assert_true(partial_size(&r, NULL) > 0);
    int before = all_requests(&r);
    resolve(&r);
    assert_int_equal(r.status, DK_CANCELLED);
    assert_true(all_requests(&r) <= before + 1);

    w.stop_in_shard = false;
    w.calls = 0;
    atomic_store(&w.cancel, false);
    resolve(&r);
    assert_complete(&r);
    assert_int_equal(store_requests(&r, "range=bytes="), 1);
    assert_true(w.calls >= 3);
    assert_true(w.all_total > 0 && w.all_done == w.all_total);
    end(&r);
}

/* ---- wrong content ---- */

static void wrong_content(void **state, const char *name, const char *file, const char *reason)
{
    run r = begin(state, name);
    resolve(&r);
    assert_failed(&r, DK_FORMAT, file, reason);
    assert_int_equal(partial_size(&r, NULL), -1);
    assert_false(dk_path_exists(r.snapshot) && count_files(r.snapshot) >= NEEDED);
    end(&r);
}

static void test_wrong_content(void **state)
{
    wrong_content(state, "badsum", HUB_SHARD, "checksum");
    wrong_content(state, "badsmall", "vae/config.json", "checksum");
    wrong_content(state, "long", HUB_SHARD, "more than");
    wrong_content(state, "otheretag", HUB_SHARD, "listing");
    wrong_content(state, "nosum", HUB_SHARD, "checksum");
    wrong_content(state, "badjson", "org/badjson", "JSON");
    wrong_content(state, "badcommit", "org/badcommit", "40 hexadecimal");
    fails(state, "noindex", DK_UNSUPPORTED, "model_index.json", "-Diffusers");
    fails(state, "incomplete", DK_UNSUPPORTED, HUB_SHARD, "does not offer");
    fails(state, "huge", DK_IO, "are needed", "are available");
}

/* Names that lead out of the folder are refused, and nothing is written beside the cache. */
static void test_hostile_names(void **state)
{
    static const char *const models[] = {"hostile", "absolute"};
    for (size_t i = 0; i < 2; i++) {
        run r = begin(state, models[i]);
        resolve(&r);
        if (i == 0) {
            assert_failed(&r, DK_FORMAT, "escaped.json", "leaves the model's folder");
        } else {
            assert_complete(&r); /* of no component, so it is not asked for */
        }
        assert_int_equal(count_files(r.home), count_files(r.cache));
        assert_false(dk_path_exists("/escaped.json"));
        end(&r);
    }
}

/* ---- several processes ---- */

static void test_parallel(void **state)
{
    enum { PROCESSES = 3 };
    run r = begin(state, "parallel");
    pid_t children[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            resolve(&r);
            _exit(r.status == DK_OK ? 0 : 1);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int result = -1;
        waitpid(children[i], &result, 0);
        assert_int_equal(result, 0);
    }
    /* Each file was fetched by one of them. */
    assert_int_equal(store_requests(&r, ""), LARGE_FILES);
    resolve(&r);
    assert_complete(&r);
    end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_download),
        cmocka_unit_test(test_repair),
        cmocka_unit_test(test_revisions),
        cmocka_unit_test(test_offline),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_denied),
        cmocka_unit_test(test_not_found),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_resume_within_a_run),
        cmocka_unit_test(test_resume_across_runs),
        cmocka_unit_test(test_spoilt_part),
        cmocka_unit_test(test_stall),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_wrong_content),
        cmocka_unit_test(test_hostile_names),
        cmocka_unit_test(test_parallel),
    };
    return cmocka_run_group_tests(tests, hub_start, hub_stop);
}
