/* Malformed configurations and model folders (tests/hostile/config and model_index), each
   inside an otherwise good model: refused with a message or read, without a large allocation.
 */
#include "test.h"

#include <string.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "base/string.h"
#include "device/cpu/cpu_device.h"
#include "models/t5/encoder.h"
#include "models/wan/dit.h"
#include "models/wan/vae.h"
#include "pipeline/pipeline.h"
#include "scratch.h"

#define FOLDER "tests/hostile/"
#define GOOD   "tests/golden/wan2.1-t2v/checkpoint/"

enum { MAX_GROWTH_KIB = 32 * 1024 }; /* a tokenizer is opened each time */

typedef struct fixture {
    char *folder; /* a model of links to the good one */
    dk_device *device;
} fixture;

static const char *const parts[] = {"model_index.json", "scheduler", "text_encoder",
                                    "tokenizer", "vae"};

static int setup(void **state)
{
    static fixture f;
    dk_error err;
    f.folder = scratch_create();
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char *target = dk_path_join(GOOD, parts[i]);
        scratch_link(f.folder, parts[i], target);
        dk_free(target);
    }
    scratch_link(f.folder, "transformer/diffusion_pytorch_model.safetensors",
                 GOOD "transformer/diffusion_pytorch_model.safetensors");
    assert_ok(dk_cpu_device_open(&f.device, &(dk_device_options){.threads = 1}, &err), err);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    dk_device_close(&f->device);
    scratch_remove(f->folder);
    return 0;
}

static dk_status open_model(fixture *f, const char *folder, dk_error *err)
{
    dk_model_folder *model = NULL;
    dk_pipeline *pipeline = NULL;
    DK_TRY(dk_model_folder_open(&model, folder, err));
    dk_status status =
        dk_pipeline_open(&pipeline, model, f->device, &(dk_pipeline_options){0}, err);
    assert_true((status == DK_OK) == (pipeline != NULL));
    dk_pipeline_close(&pipeline);
    dk_model_folder_close(&model);
    return status;
}

static void judge(dk_status status, const char *expected, const char *path, const char *where,
                  const dk_error *err)
{
    if (strcmp(expected, "accept") == 0) {
        assert_ok(status, *err);
    } else if (strcmp(expected, "reject") == 0 && status == DK_OK) {
        fail_msg("%s was accepted", path);
    }
    if (status != DK_OK) {
        assert_int_equal(err->status, status);
        assert_useful(err, where);
    }
}

/* The other parsers see the same files: whatever they say, nothing breaks. */
static void check_other_parsers(const char *path)
{
    dk_error err;
    json_t *config = NULL;
    if (dk_json_load(&config, path, DK_JSON_CONFIG_BYTES, &err) == DK_OK) {
        dk_t5_config t5;
        dk_wan_vae_config vae;
        dk_sampler *sampler = NULL;
        const dk_sampler_options options = {.flow_shift = 3, .steps = 4};
        if (dk_t5_config_parse(&t5, config, path, &err) != DK_OK) {
            assert_useful(&err, path);
        }
        if (dk_wan_vae_config_parse(&vae, config, path, &err) != DK_OK) {
            assert_useful(&err, path);
        }
        if (dk_sampler_create(&sampler, config, &options, path, &err) != DK_OK) {
            assert_useful(&err, path);
        }
        dk_sampler_destroy(&sampler);
    }
    json_decref(config);
}

static void check_config(fixture *f, const char *path, const char *expected)
{
    dk_error err = {0};
    char *where = dk_path_join(f->folder, "transformer");
    scratch_link(f->folder, "transformer/config.json", path);
    dk_status status = open_model(f, f->folder, &err);
    judge(status, expected, path, where, &err);
    assert_true(status == DK_OK || status == DK_FORMAT || status == DK_UNSUPPORTED ||
                status == DK_MISMATCH);
    check_other_parsers(path);
    dk_free(where);
}

static void check_model_index(fixture *f, const char *path, const char *expected)
{
    dk_error err = {0};
    judge(open_model(f, path, &err), expected, path, path, &err);
}

/* The same index beside good components: still refused where it is the index that is bad. */
static void check_index_in_good_model(fixture *f, const char *path, const char *expected)
{
    dk_error err = {0};
    char *index = dk_path_join(path, "model_index.json");
    scratch_link(f->folder, "transformer/config.json", GOOD "transformer/config.json");
    scratch_link(f->folder, "model_index.json", index);
    dk_status status = open_model(f, f->folder, &err);
    if (strstr(path, "missing_components") != NULL) {
        assert_ok(status, err);
    } else {
        judge(status, expected, path, f->folder, &err);
    }
    scratch_link(f->folder, "model_index.json", GOOD "model_index.json");
    dk_free(index);
}

static void each_case(fixture *f, const char *list, int at_least,
                      void (*check)(fixture *f, const char *path, const char *expected))
{
    dk_error err;
    struct rusage before, after;
    json_t *root = NULL, *entry;
    size_t i;
    int count = 0;
    scratch_link(f->folder, "transformer/config.json", GOOD "transformer/config.json");
    assert_ok(open_model(f, f->folder, &err), err);
    getrusage(RUSAGE_SELF, &before);
    assert_ok(dk_json_load(&root, list, DK_JSON_CONFIG_BYTES, &err), err);
    json_array_foreach(json_object_get(root, "cases"), i, entry)
    {
        char *path = dk_path_join(FOLDER, json_string_value(json_object_get(entry, "path")));
        check(f, path, json_string_value(json_object_get(entry, "expected")));
        dk_free(path);
        count++;
    }
    json_decref(root);
    assert_true(count >= at_least);
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - before.ru_maxrss < MAX_GROWTH_KIB + DK_TEST_SLACK_KIB);
}

static void test_config(void **state)
{
    each_case(*state, FOLDER "config/cases.json", 26, check_config);
}

static void test_model_index(void **state)
{
    each_case(*state, FOLDER "model_index/cases.json", 5, check_model_index);
    each_case(*state, FOLDER "model_index/cases.json", 5, check_index_in_good_model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_model_index),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
