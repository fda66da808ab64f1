/* Planned memory: what a forward pass uses is exactly what its dry run asked for, and the steps
   of a generation allocate nothing. */
#include "test.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "darkroom/darkroom.h"
#include "device/cpu/cpu_device.h"
#include "models/t5/encoder.h"
#include "models/wan/vae.h"
#include "scratch.h"

#define CHECKPOINT "tests/golden/wan2.1-t2v/checkpoint/"

static atomic_int allocations;

void *__real_dk_alloc(size_t bytes);
void *__wrap_dk_alloc(size_t bytes);
void *__wrap_dk_alloc(size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __real_dk_alloc(bytes);
}

void *__real_dk_realloc(void *memory, size_t bytes);
void *__wrap_dk_realloc(void *memory, size_t bytes);
void *__wrap_dk_realloc(void *memory, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __real_dk_realloc(memory, bytes);
}

dk_status __real_dk_try_alloc(void **out, size_t bytes, const char *what, dk_error *err);
dk_status __wrap_dk_try_alloc(void **out, size_t bytes, const char *what, dk_error *err);
dk_status __wrap_dk_try_alloc(void **out, size_t bytes, const char *what, dk_error *err)
{
    atomic_fetch_add(&allocations, 1);
    return __real_dk_try_alloc(out, bytes, what, err);
}

typedef struct model {
    dk_device *device;
    dk_nn nn;
    json_t *config;
    dk_weights *weights;
} model;

static void open_model(model *m, const char *component, dk_dtype type)
{
    char path[128];
    dk_error err;
    const dk_device_options options = {.threads = 2, .exact = type == DK_F32};
    assert_ok(dk_cpu_device_open(&m->device, &options, &err), err);
    dk_nn_init(&m->nn, m->device, type, NULL);
    snprintf(path, sizeof path, CHECKPOINT "%s/config.json", component);
    assert_ok(dk_json_load(&m->config, path, DK_JSON_CONFIG_BYTES, &err), err);
    snprintf(path, sizeof path, CHECKPOINT "%s", component);
    assert_ok(dk_weights_open(&m->weights, path, &err), err);
}

static void close_model(model *m)
{
    dk_weights_unref(m->weights);
    json_decref(m->config);
    dk_nn_release(&m->nn);
    dk_device_close(&m->device);
}

typedef dk_status forward_fn(dk_nn *nn, const void *net, int size, dk_error *err);

static dk_status encode(dk_nn *nn, const void *net, int size, dk_error *err)
{
    static const int32_t ids[64] = {5, 6, 7, 8};
    const dk_t5_encoder *encoder = net;
    dk_tensor out = dk_nn_keep(nn, DK_F32, size, dk_t5_encoder_config(encoder)->d_model);
    return dk_t5_encoder_forward(nn, encoder, &out, ids, size, err);
}

static dk_status ignore(void *context, int64_t first, int64_t count, const dk_tensor *sample,
                        dk_error *err)
{
    (void)context;
    (void)first;
    (void)count;
    (void)sample;
    (void)err;
    return DK_OK;
}

static dk_status decode(dk_nn *nn, const void *net, int size, dk_error *err)
{
    dk_tensor latent = dk_nn_keep(nn, DK_F32, 16, 3 * (int64_t)size * size);
    dk_device_zero(nn->device, latent.data, dk_tensor_bytes(&latent));
    return dk_wan_vae_decode(nn, net, &latent, 3, size, size, ignore, NULL, err);
}

/* Plans and runs; then with either stack one unit smaller, which must not do. */
static void check_plan(model *m, const void *net, forward_fn *forward, int size)
{
    dk_error err;
    dk_nn *nn = &m->nn;
    dk_nn_dry_begin(nn);
    assert_ok(forward(nn, net, size, &err), err);
    assert_ok(dk_nn_dry_end(nn, &err), err);
    dk_nn_stack *stacks[] = {&nn->temp, &nn->keep};
    for (int i = -1; i < 2; i++) {
        nn->temp.used = nn->keep.used = 0;
        size_t temp = nn->temp.size, keep = nn->keep.size;
        nn->temp.size = nn->temp.peak;
        nn->keep.size = nn->keep.peak;
        if (i >= 0) {
            assert_true(stacks[i]->size >= DK_ALIGNMENT);
            stacks[i]->size -= DK_ALIGNMENT;
        }
        dk_status status = forward(nn, net, size, &err);
        if (status == DK_OK) {
            status = dk_device_sync(m->device, &err);
        }
        if (i < 0) {
            assert_ok(status, err);
            assert_int_equal(nn->temp.used, 0);
        } else {
            assert_int_equal(status, DK_INTERNAL);
            assert_non_null(strstr(err.message, "more memory than its dry run"));
        }
        nn->temp.size = temp;
        nn->keep.size = keep;
    }
}

static void test_text_encoder(void **state)
{
    (void)state;
    static const dk_dtype types[] = {DK_F32, DK_BF16};
    for (int i = 0; i < 2; i++) {
        model m;
        dk_error err;
        dk_t5_config config;
        dk_t5_encoder *encoder;
        open_model(&m, "text_encoder", types[i]);
        assert_ok(dk_t5_config_parse(&config, m.config, "config", &err), err);
        assert_ok(dk_t5_encoder_create(&encoder, &config, m.weights, "t5", &err), err);
        check_plan(&m, encoder, encode, 3);
        check_plan(&m, encoder, encode, 40);
        check_plan(&m, encoder, encode, 1);
        dk_t5_encoder_destroy(&encoder);
        close_model(&m);
    }
}

static void test_vae(void **state)
{
    (void)state;
    static const dk_dtype types[] = {DK_F32, DK_BF16};
    for (int i = 0; i < 2; i++) {
        model m;
        dk_error err;
        dk_wan_vae_config config;
        dk_wan_vae *vae;
        open_model(&m, "vae", types[i]);
        assert_ok(dk_wan_vae_config_parse(&config, m.config, "config", &err), err);
        assert_ok(dk_wan_vae_create(&vae, &config, m.weights, m.device, DK_WAN_VAE_DECODER,
                                    "vae", &err),
                  err);
        check_plan(&m, vae, decode, 4);
        check_plan(&m, vae, decode, 6);
        check_plan(&m, vae, decode, 2);
        dk_wan_vae_destroy(&vae);
        close_model(&m);
    }
}

typedef struct counts {
    int at_first, at_last, steps;
} counts;

static void count_steps(void *context, const dk_event *event)
{
    counts *c = context;
    if (event->kind == DK_EVENT_STEP) {
        c->at_last = atomic_load(&allocations);
        c->at_first = c->steps++ == 0 ? c->at_last : c->at_first;
    }
}

static void test_steps_allocate_nothing(void **state)
{
    (void)state;
    static const char *const samplers[] = {"unipc", "euler", "dpm++"};
    dk_error err;
    dk_engine *engine;
    dk_engine_options options;
    dk_engine_options_init(&options);
    options.model_path = CHECKPOINT;
    options.threads = 2;
    assert_ok(dk_engine_open(&engine, &options, &err), err);
    for (int i = 0; i < 3; i++) {
        dk_request request;
        dk_result result;
        counts c = {0};
        dk_request_init(&request, engine);
        request.prompt = "a cat";
        request.width = request.height = 32;
        request.num_frames = 5;
        request.num_inference_steps = 6;
        request.sampler = samplers[i];
        assert_ok(dk_generate(engine, &request, count_steps, &c, &result, &err), err);
        assert_int_equal(c.steps, 6);
        assert_int_equal(c.at_last - c.at_first, 0);
        dk_result_release(&result);

        c = (counts){0};
        char *folder = scratch_create(), *path = scratch_path(folder, "checkpoint");
        dk_generation one = {
            .request = &request, .events = count_steps, .context = &c, .checkpoint = path};
        dk_generate_together(engine, &one, 1);
        assert_ok(one.status, one.error);
        assert_int_equal(c.at_last - c.at_first, 0);
        assert_int_equal(scratch_count(folder), 1);
        dk_result_release(&one.result);
        dk_free(path);
        scratch_remove(folder);
    }
    dk_engine_close(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_encoder),
        cmocka_unit_test(test_vae),
        cmocka_unit_test(test_steps_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
