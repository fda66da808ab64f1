/* Whole generations on the XPU's CPU device: weights that come and go, products that go wrong,
   weights of fewer bits, prompts on another device, warming up. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "darkroom/darkroom.h"
#include "engine/engine_state.h"
#include "test.h"

/* Like BF16_FRAME_RMS of the selftest, in steps of 255: sums in another order and type. */
static const double CLOSE_RMS = 0.02 * 255;

enum { SIDE = 64, BYTES = SIDE * SIDE * 3, LOG_BYTES = 16384 };

typedef struct told {
    char log[LOG_BYTES];
    int warnings; /* events */
} told;

static void note_line(void *context, dk_log_level level, const char *line)
{
    told *t = context;
    size_t used = strlen(t->log);
    (void)level;
    snprintf(t->log + used, sizeof t->log - used, "%s\n", line);
}

static void note_event(void *context, const dk_event *event)
{
    ((told *)context)->warnings += event->kind == DK_EVENT_WARNING;
}

static dk_engine_options usual(told *t, const char *dtype)
{
    dk_engine_options options;
    dk_engine_options_init(&options);
    options.model_path = "models/tiny-wan";
    options.device = "xpu:cpu";
    options.dtype = dtype;
    options.log = note_line;
    options.log_context = t;
    options.log_level = DK_LOG_INFO;
    *t = (told){0};
    return options;
}

/* One picture of two steps. */
static dk_status picture(const dk_engine_options *options, told *t, unsigned char rgb[BYTES],
                         dk_error *err)
{
    dk_engine *engine = NULL;
    dk_request request;
    dk_result result = {0};
    dk_status status = dk_engine_open(&engine, options, err);
    if (status != DK_OK) {
        return status;
    }
    dk_request_init(&request, engine);
    request.prompt = "a red circle";
    request.width = request.height = SIDE;
    request.num_frames = 1;
    request.num_inference_steps = 2;
    status = dk_generate(engine, &request, note_event, t, &result, err);
    if (status == DK_OK) {
        memcpy(rgb, result.rgb, BYTES);
    }
    dk_result_release(&result);
    dk_engine_close(&engine);
    return status;
}

static double rms_of(const unsigned char *a, const unsigned char *b)
{
    double squares = 0;
    for (int i = 0; i < BYTES; i++) {
        squares += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    }
    return sqrt(squares / BYTES);
}

static unsigned char resident[BYTES], other[BYTES];

static int make_resident(void **state)
{
    (void)state;
    told t;
    dk_error err;
    dk_engine_options options = usual(&t, "f32");
    assert_ok(picture(&options, &t, resident, &err), err);
    return 0;
}

static void offload_keeps_every_bit(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        told t;
        dk_error err;
        dk_engine_options options = usual(&t, "f32");
        options.dit_layerwise_offload = i < 3;
        options.offload_budget_mb = i == 1 ? 4 : 0;
        options.pin_cpu_memory = i == 2;
        options.dit_cpu_offload = options.text_encoder_cpu_offload = options.vae_cpu_offload =
            i == 3;
        assert_ok(picture(&options, &t, other, &err), err);
        assert_memory_equal(other, resident, BYTES);
        assert_true((strstr(t.log, "take turns in") != NULL) == (i < 3));
    }
}

static void refuses_a_budget_below_a_layer(void **state)
{
    (void)state;
    told t;
    dk_error err;
    dk_engine_options options = usual(&t, "f32");
    options.dit_layerwise_offload = true;
    options.offload_budget_mb = 1;
    assert_int_equal(picture(&options, &t, other, &err), DK_MEMORY);
    assert_non_null(strstr(err.message, "offload_budget_mb of at least 2"));
}

static void notices_wrong_products(void **state)
{
    (void)state;
    told t;
    dk_error err;
    dk_engine_options options = usual(&t, "f32");
    setenv("DARKROOM_XPU_FAULT", "products", 1);
    dk_status status = picture(&options, &t, other, &err);
    unsetenv("DARKROOM_XPU_FAULT");
    assert_ok(status, err);
    assert_non_null(strstr(t.log, "gives wrong numbers for a linear layer"));
    assert_non_null(strstr(t.log, "gives wrong numbers for a convolution"));
    assert_true(rms_of(other, resident) < 1);
}

/* What no check finds: products that are wrong only where they are used. */
static void computes_a_spoiled_block_again(void **state)
{
    (void)state;
    static const struct {
        const char *fault, *first, *last;
    } faults[] = {
        {"unchecked-products", "step 1: block 0 of the transformer was not finite",
         "block 5 of the transformer"},
        {"unchecked-products:text_encoder",
         "text encoding: block 0 of the text encoder was not finite",
         "block 1 of the text encoder"},
        {"unchecked-products:vae", "decoding: stage 0 of the VAE's decoder was not finite",
         "stage 2 of the VAE's decoder"},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        told t;
        dk_error err;
        dk_engine_options options = usual(&t, "f32");
        setenv("DARKROOM_XPU_FAULT", faults[i].fault, 1);
        dk_status status = picture(&options, &t, other, &err);
        unsetenv("DARKROOM_XPU_FAULT");
        assert_ok(status, err);
        assert_true(t.warnings >= 2); /* one per block, once */
        assert_non_null(strstr(t.log, faults[i].first));
        assert_non_null(strstr(t.log, faults[i].last));
        assert_true(rms_of(other, resident) < 1);
    }
}

static void multiplies_weights_of_fewer_bits(void **state)
{
    (void)state;
    static const struct {
        const char *kind;
        double rms; /* what two steps of this miniature lose, with room */
    } kinds[] = {{"int8", 6}, {"int8-weights", 6}, {"int4-weights", 40}, {"fp8-weights", 15}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        told t;
        dk_error err;
        char line[64];
        dk_engine_options options = usual(&t, "bf16");
        options.quantization = kinds[i].kind;
        assert_ok(picture(&options, &t, other, &err), err);
        snprintf(line, sizeof line, "%s: 60 layers", kinds[i].kind);
        assert_non_null(strstr(t.log, line));
        assert_non_null(strstr(t.log, " 0 kept as stored"));
        double rms = rms_of(other, resident);
        assert_true(rms > 0 && rms < kinds[i].rms);
    }
}

static void attends_in_whole_numbers(void **state)
{
    (void)state;
    told t;
    dk_error err;
    dk_engine_options options = usual(&t, "bf16");
    options.attention_backend = "sage";
    assert_ok(picture(&options, &t, other, &err), err);
    double rms = rms_of(other, resident);
    assert_true(rms > 0 && rms < CLOSE_RMS);
}

static void encodes_prompts_on_the_cpu(void **state)
{
    (void)state;
    told t;
    dk_error err;
    dk_engine_options options = usual(&t, "f32");
    options.text_encoder_device = "cpu";
    assert_ok(picture(&options, &t, other, &err), err);
    assert_true(rms_of(other, resident) < 1);
}

/* Two requests: the prompts of the second are encoded while the first is denoised. */
typedef struct ahead {
    dk_engine *engine;
    dk_request next;
    dk_embedding_stats at_end; /* of the first one's denoising */
} ahead;

static void prepare_next(void *context, const dk_event *event)
{
    ahead *a = context;
    if (event->kind == DK_EVENT_STEP && event->step == 1) {
        dk_engine_prepare(a->engine, &a->next);
    } else if (event->kind == DK_EVENT_STEP) {
        dk_engine_embedding_stats(a->engine, &a->at_end);
    }
}

static void encodes_the_next_prompt_while_it_denoises(void **state)
{
    (void)state;
    enum { STEPS = 60 };
    told t;
    dk_error err;
    ahead a = {0};
    dk_result first, second, alone;
    dk_embedding_stats before, after;
    dk_engine_options options = usual(&t, "bf16");
    options.text_encoder_device = "cpu";
    assert_ok(dk_engine_open(&a.engine, &options, &err), err);
    assert_true(dk_engine_prepares(a.engine));
    dk_request_init(&a.next, a.engine);
    a.next.width = a.next.height = SIDE;
    a.next.num_frames = 1;
    a.next.num_inference_steps = STEPS;
    dk_request request = a.next;
    request.prompt = "a red circle";
    a.next.prompt = "a blue square that nobody has asked for before";
    assert_ok(dk_generate(a.engine, &request, prepare_next, &a, &first, &err), err);
    assert_int_equal(a.at_end.prepared,
                     1); /* the negative one is empty in both, and was kept */
    a.next.num_inference_steps = 2;
    dk_engine_embedding_stats(a.engine, &before);
    assert_ok(dk_generate(a.engine, &a.next, NULL, NULL, &second, &err), err);
    dk_engine_embedding_stats(a.engine, &after);
    assert_int_equal(after.hits - before.hits, 2);
    assert_int_equal(after.misses, before.misses);
    request.prompt = "one that is being encoded when the engine is closed";
    dk_engine_prepare(a.engine, &request);
    dk_engine_close(&a.engine);
    options.embedding_cache_mb = 0;
    assert_ok(dk_engine_open(&a.engine, &options, &err), err);
    assert_false(dk_engine_prepares(a.engine)); /* there is no place to keep it */
    assert_ok(dk_generate(a.engine, &a.next, NULL, NULL, &alone, &err), err);
    assert_memory_equal(second.rgb, alone.rgb, BYTES);
    dk_engine_close(&a.engine);
    dk_result_release(&first);
    dk_result_release(&second);
    dk_result_release(&alone);
}

/* What a request takes on the device: planned before, and what its dry runs then found. */
static void plans_all_scratch(void **state)
{
    (void)state;
    static const struct {
        const char *dtype, *attention, *quantization;
    } cases[] = {
        {"f32", "flash", NULL}, {"bf16", "flash", "int8"}, {"bf16", "sage", "int4-weights"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        told t;
        dk_error err;
        dk_plan plan;
        dk_result result;
        dk_engine *engine = NULL;
        dk_engine_options options = usual(&t, cases[i].dtype);
        options.attention_backend = cases[i].attention;
        options.quantization = cases[i].quantization;
        assert_ok(dk_engine_open(&engine, &options, &err), err);
        dk_request request;
        dk_request_init(&request, engine);
        request.prompt = "a red circle";
        request.width = request.height = 128;
        request.num_frames = 5;
        request.num_inference_steps = 1;
        assert_ok(dk_engine_plan(engine, &request, &plan, &err), err);
        assert_ok(dk_generate(engine, &request, NULL, NULL, &result, &err), err);
        double stacks = (double)(engine->nn.temp.size + engine->nn.keep.size);
        double scratch = (double)dk_device_scratch_bytes(engine->device);
        double host = 128 * 128 * 3 * (5 + 4 * 4); /* frames, and some of them as f32 */
        double ratio = (double)plan.peak_bytes / (stacks + scratch + host);
        print_message("%s, %s: planned %.2f MB, took %.2f MB in stacks, %.2f MB of scratch\n",
                      cases[i].dtype, cases[i].attention, (double)plan.peak_bytes * 1e-6,
                      stacks * 1e-6, scratch * 1e-6);
        assert_true(scratch > 0 && ratio > 0.95 && ratio < 1.1);
        double without = plan.flops;
        request.image_path = "tests/golden/wan2.1-edit/picture.png";
        request.strength = 1;
        assert_ok(dk_engine_plan(engine, &request, &plan, &err), err);
        assert_true(plan.flops > without); /* of an encoder that no device has prepared */
        dk_result_release(&result);
        dk_engine_close(&engine);
    }
}

static void warms_up_the_sizes_that_are_named(void **state)
{
    (void)state;
    told t;
    dk_error err;
    dk_engine_options options = usual(&t, "f32");
    options.enable_torch_compile = true;
    options.warmup_resolutions = "64x64,32x48x5";
    assert_ok(picture(&options, &t, other, &err), err);
    assert_memory_equal(other, resident, BYTES);
    assert_non_null(strstr(t.log, "warm-up: 64 x 64 x 1"));
    assert_non_null(strstr(t.log, "warm-up: 32 x 48 x 5"));
    options.enable_torch_compile = false;
    options.warmup_resolutions = "64x64"; /* is enough */
    assert_ok(picture(&options, &t, other, &err), err);
    assert_non_null(strstr(t.log, "warm-up: 64 x 64 x 1"));
    options.warmup_mode = "request";
    assert_int_equal(picture(&options, &t, other, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "accepted with them is server"));
    options.warmup_mode = NULL;
    options.warmup_resolutions = "64x64,";
    assert_int_equal(picture(&options, &t, other, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "accepted are sizes such as 832x480x81"));
}

static void warms_up_before_the_first_request_of_a_size(void **state)
{
    (void)state;
    told t;
    dk_error err;
    dk_engine *engine = NULL;
    dk_request request;
    dk_engine_options options = usual(&t, "f32");
    options.warmup_mode = "request";
    assert_ok(dk_engine_open(&engine, &options, &err), err);
    dk_request_init(&request, engine);
    request.prompt = "a red circle";
    request.num_frames = 1;
    request.num_inference_steps = 2;
    static const int sides[] = {SIDE, 32, SIDE, 32};
    for (int i = 0; i < 4; i++) {
        dk_result result = {0};
        char line[64];
        snprintf(line, sizeof line, "warm-up: %d x %d x 1", sides[i], sides[i]);
        request.width = request.height = sides[i];
        t.log[0] = '\0';
        assert_ok(dk_generate(engine, &request, NULL, NULL, &result, &err), err);
        assert_int_equal(strstr(t.log, line) != NULL, i < 2);
        if (sides[i] == SIDE) {
            assert_memory_equal(result.rgb, resident, BYTES);
        }
        dk_result_release(&result);
    }
    dk_engine_close(&engine);
}

static void is_close_to_the_cpu_in_bf16(void **state)
{
    (void)state;
    told t;
    dk_error err;
    unsigned char cpu[BYTES];
    dk_engine_options options = usual(&t, "bf16");
    assert_ok(picture(&options, &t, other, &err), err);
    options.device = "cpu";
    assert_ok(picture(&options, &t, cpu, &err), err);
    assert_true(rms_of(other, cpu) < CLOSE_RMS);
}

/* argument: the test that runs, alone. */
int main(int argc, char **argv)
{
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offload_keeps_every_bit),
        cmocka_unit_test(refuses_a_budget_below_a_layer),
        cmocka_unit_test(notices_wrong_products),
        cmocka_unit_test(computes_a_spoiled_block_again),
        cmocka_unit_test(multiplies_weights_of_fewer_bits),
        cmocka_unit_test(attends_in_whole_numbers),
        cmocka_unit_test(encodes_prompts_on_the_cpu),
        cmocka_unit_test(encodes_the_next_prompt_while_it_denoises),
        cmocka_unit_test(plans_all_scratch),
        cmocka_unit_test(warms_up_the_sizes_that_are_named),
        cmocka_unit_test(warms_up_before_the_first_request_of_a_size),
        cmocka_unit_test(is_close_to_the_cpu_in_bf16),
    };
    return cmocka_run_group_tests(tests, make_resident, NULL);
}
