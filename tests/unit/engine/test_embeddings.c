/* Kept text embeddings: the same bits, found by the ids alone, never from a file that cannot be
   trusted. */
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "darkroom/darkroom.h"
#include "pipeline/embedding_cache.h"
#include "scratch.h"
#include "test.h"

static dk_engine *open_engine(int mb, const char *folder, const char *dtype)
{
    dk_error err;
    dk_engine *engine = NULL;
    dk_engine_options options;
    dk_engine_options_init(&options);
    options.model_path = "tests/golden/wan2.1-t2v/checkpoint";
    options.threads = 2;
    options.dtype = dtype;
    options.embedding_cache_mb = mb;
    options.embedding_cache_path = folder;
    assert_ok(dk_engine_open(&engine, &options, &err), err);
    return engine;
}

static dk_result generate(dk_engine *engine, const char *prompt, const char *negative)
{
    dk_error err;
    dk_result result;
    dk_request request;
    dk_request_init(&request, engine);
    request.prompt = prompt;
    request.negative_prompt = negative;
    request.width = request.height = 32;
    request.num_frames = 1;
    request.num_inference_steps = 2;
    assert_ok(dk_generate(engine, &request, NULL, NULL, &result, &err), err);
    return result;
}

static void assert_same(const dk_result *a, const dk_result *b)
{
    assert_memory_equal(a->rgb, b->rgb, 32 * 32 * 3);
}

static void assert_stats(const dk_engine *engine, uint64_t hits, uint64_t disk_hits,
                         uint64_t misses, uint64_t entries)
{
    dk_embedding_stats s;
    dk_engine_embedding_stats(engine, &s);
    assert_int_equal(s.hits, hits);
    assert_int_equal(s.disk_hits, disk_hits);
    assert_int_equal(s.misses, misses);
    assert_int_equal(s.entries, entries);
    assert_true((s.bytes > 0) == (entries > 0));
}

/* A prompt of no words too. */
static void test_same_bits(void **state)
{
    (void)state;
    char *folder = scratch_create();
    dk_engine *without = open_engine(0, NULL, "bf16"), *with = open_engine(64, folder, "bf16");
    dk_result expected = generate(without, "a cat", "");
    dk_result first = generate(with, "a cat", ""), again = generate(with, "a  cat ", "");
    assert_same(&first, &expected);
    assert_same(&again, &expected); /* the ids are the key, not the letters */
    assert_stats(without, 0, 0, 0, 0);
    assert_stats(with, 2, 0, 2, 2);
    dk_result_release(&again);

    dk_engine *later = open_engine(64, folder, "bf16"); /* finds the files of the other */
    again = generate(later, "a cat", "");
    assert_same(&again, &expected);
    assert_stats(later, 0, 2, 0, 2);
    dk_result_release(&again);
    dk_engine *exact = open_engine(64, folder, "f32"); /* other bits: other files */
    again = generate(exact, "a cat", "");
    assert_stats(exact, 0, 0, 2, 2);
    assert_int_equal(scratch_count(folder), 4);
    dk_result_release(&again);
    dk_engine *disk_only = open_engine(0, folder, "bf16");
    again = generate(disk_only, "a cat", "");
    assert_same(&again, &expected);
    assert_stats(disk_only, 0, 2, 0, 0);
    dk_result_release(&again);
    dk_engine_close(&disk_only);
    dk_engine_close(&exact);
    dk_engine_close(&later);
    dk_engine_close(&with);
    dk_engine_close(&without);
    dk_result_release(&first);
    dk_result_release(&expected);
    scratch_remove(folder);
}

/* As a request does that is alone. */
static float *find(dk_embedding_cache *cache, const int32_t *ids, int64_t count, int64_t width)
{
    dk_embedding_claim *claim = NULL;
    dk_nn nobody = {0};
    float *values = dk_embedding_cache_claim(cache, ids, count, width, &nobody, &claim);
    assert_true((values == NULL) == (claim != NULL));
    dk_embedding_cache_settle(cache, &claim, NULL);
    return values;
}

static void keep(dk_embedding_cache *cache, const int32_t *ids, int64_t count, int64_t width,
                 const float *values)
{
    dk_embedding_claim *claim = NULL;
    dk_nn nobody = {0};
    assert_null(dk_embedding_cache_claim(cache, ids, count, width, &nobody, &claim));
    dk_embedding_cache_settle(cache, &claim, values);
    assert_null(claim);
}

enum { IDS = 3, WIDTH = 4, IDS_WIDTH = IDS * WIDTH };

static char *only_file(const char *folder)
{
    DIR *dir = opendir(folder);
    char *path = NULL;
    assert_non_null(dir);
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (dk_ends_with(e->d_name, ".safetensors")) {
            assert_null(path);
            path = dk_path_join(folder, e->d_name);
        }
    }
    closedir(dir);
    return path;
}

/* Every byte of the file changed, and the file cut everywhere. */
static void test_damaged_files(void **state)
{
    (void)state;
    static const int32_t ids[IDS] = {7, 8, 1};
    float values[IDS_WIDTH];
    dk_error err;
    char *folder = scratch_create(), *bytes;
    size_t size;
    for (int i = 0; i < IDS_WIDTH; i++) {
        values[i] = (float)i * 0.25f;
    }
    dk_embedding_cache *cache = dk_embedding_cache_create(0, folder, "an encoder");
    keep(cache, ids, IDS, WIDTH, values);
    char *path = only_file(folder);
    assert_ok(dk_file_read(&bytes, &size, path, 1 << 20, &err), err);
    for (size_t i = 0; i < 2 * size; i++) {
        if (i % 2 == 0) {
            assert_ok(dk_file_write(path, bytes, i / 2, &err), err);
        } else {
            bytes[i / 2] = (char)(bytes[i / 2] ^ 1);
            assert_ok(dk_file_write(path, bytes, size, &err), err);
            bytes[i / 2] = (char)(bytes[i / 2] ^ 1);
        }
        float *found = find(cache, ids, IDS, WIDTH);
        if (found != NULL) { /* spaces behind the header may change */
            assert_true(i % 2 == 1);
            assert_memory_equal(found, values, sizeof values);
        }
        dk_free(found);
    }
    assert_ok(dk_file_write(path, bytes, size, &err), err);
    float *found = find(cache, ids, IDS, WIDTH);
    assert_non_null(found);
    assert_memory_equal(found, values, sizeof values);
    dk_free(found);
    dk_free(bytes);
    dk_free(path);
    dk_embedding_cache_destroy(&cache);
    scratch_remove(folder);
}

/* The one that was not used for longest goes first. */
static void test_oldest_goes(void **state)
{
    (void)state;
    enum { PROMPTS = 4, LONG = 100, LARGE = LONG * WIDTH };
    static int32_t ids[PROMPTS][LONG];
    static float values[LARGE];
    dk_embedding_stats s;
    uint64_t room = 3 * (LARGE * sizeof(float) + LONG * sizeof(int32_t) + 64);
    dk_embedding_cache *cache = dk_embedding_cache_create(room, NULL, "an encoder");
    for (int i = 0; i < PROMPTS; i++) {
        ids[i][LONG - 1] = i; /* alike but for the last */
        values[0] = (float)i;
        keep(cache, ids[i], LONG, WIDTH, values);
        float *first = find(cache, ids[0], LONG, WIDTH);
        assert_non_null(first); /* used again and again: stays */
        assert_true(first[0] == 0);
        dk_free(first);
    }
    assert_null(find(cache, ids[1], LONG, WIDTH));
    for (int i = 2; i < PROMPTS; i++) {
        float *found = find(cache, ids[i], LONG, WIDTH);
        assert_true(found != NULL && found[0] == (float)i);
        dk_free(found);
    }
    assert_null(find(cache, ids[0], LONG - 1, WIDTH));
    dk_embedding_cache_stats(cache, &s);
    assert_int_equal(s.entries, 3);
    assert_true(s.bytes <= room);
    dk_embedding_cache_destroy(&cache);
}

typedef struct asker {
    dk_embedding_cache *cache;
    dk_nn nn;
    pthread_t thread;
    atomic_int *made; /* how often the embedding was computed */
    bool gives_up;
    float first; /* of what came; -1: nothing */
} asker;

static const int32_t asked[IDS] = {4, 5, 6};

/* As the stage does; computing takes a while. */
static void *ask(void *argument)
{
    asker *a = argument;
    dk_embedding_claim *claim = NULL;
    float *found = dk_embedding_cache_claim(a->cache, asked, IDS, WIDTH, &a->nn, &claim);
    a->first = found != NULL ? found[0] : -1;
    if (claim != NULL) {
        const float values[IDS_WIDTH] = {[0] = 3};
        nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
        atomic_fetch_add(a->made, 1);
        dk_embedding_cache_settle(a->cache, &claim, a->gives_up ? NULL : values);
        a->first = a->gives_up ? -1 : values[0];
    }
    dk_free(found);
    return NULL;
}

enum { ASKERS = 8 };

static void start(asker askers[ASKERS], dk_embedding_cache *cache, atomic_int *made)
{
    for (int i = 0; i < ASKERS; i++) {
        askers[i].cache = cache;
        askers[i].made = made;
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask, &askers[i]), 0);
    }
}

static void join(asker askers[ASKERS])
{
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
    }
}

/* Many ask at once: one computes, the others wait and find. */
static void test_made_once(void **state)
{
    (void)state;
    asker askers[ASKERS] = {0};
    atomic_int made = 0;
    dk_embedding_stats s;
    dk_embedding_cache *cache = dk_embedding_cache_create(1 << 20, NULL, "an encoder");
    start(askers, cache, &made);
    join(askers);
    for (int i = 0; i < ASKERS; i++) {
        assert_true(askers[i].first == 3);
    }
    assert_int_equal(made, 1);
    dk_embedding_cache_stats(cache, &s);
    assert_int_equal(s.misses, 1);
    assert_int_equal(s.hits, ASKERS - 1);
    assert_int_equal(s.prepared, 0);
    dk_embedding_cache_destroy(&cache);
}

/* Nobody waits for ever for one who fails, nor where nothing can be kept. */
static void test_one_after_the_other_gives_up(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        asker askers[ASKERS] = {0};
        atomic_int made = 0;
        dk_embedding_cache *cache =
            dk_embedding_cache_create(round == 0 ? 1 << 20 : 1, NULL, "an encoder");
        for (int i = 0; i < ASKERS && round == 0; i++) {
            askers[i].gives_up = true;
        }
        start(askers, cache, &made);
        join(askers);
        assert_int_equal(made, ASKERS);
        dk_embedding_cache_destroy(&cache);
    }
}

/* A claim of one who prepares: he who asks for himself waits, and leaves when he is stopped; he
   who prepares too does not wait. */
static void test_prepared(void **state)
{
    (void)state;
    static const float values[IDS_WIDTH] = {[0] = 3};
    asker askers[ASKERS] = {0};
    atomic_bool stop = false;
    atomic_int made = 0;
    dk_embedding_stats s;
    dk_embedding_claim *claim = NULL, *other = NULL;
    dk_embedding_cache *cache = dk_embedding_cache_create(1 << 20, NULL, "an encoder");
    assert_null(dk_embedding_cache_claim(cache, asked, IDS, WIDTH, NULL, &claim));
    assert_non_null(claim);
    assert_null(dk_embedding_cache_claim(cache, asked, IDS, WIDTH, NULL, &other));
    assert_null(other);
    askers[0].nn.own_cancel = &stop;
    start(askers, cache, &made);
    atomic_store(&stop, true);
    pthread_join(askers[0].thread, NULL);
    assert_true(askers[0].first < 0);
    dk_embedding_cache_settle(cache, &claim, values);
    for (int i = 1; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
        assert_true(askers[i].first == 3);
    }
    assert_int_equal(made, 0);
    dk_embedding_cache_stats(cache, &s);
    assert_int_equal(s.prepared, 1);
    assert_int_equal(s.hits, ASKERS - 1);
    dk_embedding_cache_destroy(&cache);
}

/* An engine whose prompts are encoded where it denoises has nothing to do ahead. */
static void test_no_device_of_its_own(void **state)
{
    (void)state;
    dk_engine *engine = open_engine(64, NULL, "bf16");
    dk_request request;
    dk_request_init(&request, engine);
    request.prompt = "a cat";
    assert_false(dk_engine_prepares(engine));
    dk_engine_prepare(engine, &request);
    assert_stats(engine, 0, 0, 0, 0);
    dk_engine_close(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_oldest_goes),
        cmocka_unit_test(test_made_once),
        cmocka_unit_test(test_one_after_the_other_gives_up),
        cmocka_unit_test(test_prepared),
        cmocka_unit_test(test_no_device_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
