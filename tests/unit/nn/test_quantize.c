/* Quantising layers: errors are measured, and a layer above the bound is kept and named. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "device/cpu/cpu_device.h"
#include "nn/quantize.h"
#include "tensor/random.h"

enum { ROWS = 48, COLS = 320 };

typedef struct fixture {
    dk_device *device;
    dk_nn_linear plain, spiked;
    dk_nn_quantized out;
    char line[256]; /* the last warning */
} fixture;

static void keep_line(void *context, dk_log_level level, const char *line)
{
    if (level == DK_LOG_WARNING) {
        snprintf(((fixture *)context)->line, sizeof((fixture *)context)->line, "%s", line);
    }
}

static dk_nn_linear random_layer(uint64_t seed)
{
    float *values = dk_alloc(sizeof(float) * ROWS * COLS);
    dk_generator generator;
    dk_generator_init(&generator, DK_NOISE_TORCH_CPU, seed);
    dk_generator_randn(&generator, values, ROWS * COLS);
    return (dk_nn_linear){.weight = DK_TENSOR(values, DK_F32, ROWS, COLS)};
}

/* The second layer has one value per row that is 20 times larger than the others: in steps of
   1/127 of it a fifteenth of their size is lost. */
static int set_up(void **state)
{
    dk_error err;
    const dk_device_options options = {.threads = 2};
    fixture *f = dk_alloc(sizeof *f);
    assert_ok(dk_cpu_device_open(&f->device, &options, &err), err);
    f->plain = random_layer(3);
    f->spiked = random_layer(4);
    for (int row = 0; row < ROWS; row++) {
        ((float *)f->spiked.weight.data)[row * COLS + row] = 20.0f;
    }
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    dk_nn_quantized_release(&f->out);
    dk_free(f->plain.weight.data);
    dk_free(f->spiked.weight.data);
    dk_device_close(&f->device);
    dk_free(f);
    return 0;
}

static dk_nn_quantizer quantizer_of(fixture *f, const dk_log *log, double max_error)
{
    return (dk_nn_quantizer){.device = f->device,
                             .kind = DK_QUANTIZATION_INT8,
                             .log = log,
                             .max_error = max_error,
                             .out = &f->out};
}

static void good_layers_become_int8(void **state)
{
    fixture *f = *state;
    dk_error err;
    dk_nn_quantizer q = quantizer_of(f, NULL, 0.03);
    assert_ok(dk_nn_quantize(&q, &f->plain, "blocks.0.plain", &err), err);
    assert_non_null(f->plain.quantized);
    assert_true(f->out.layers == 1 && f->out.kept == 0);
    /* Normal numbers reach 3.5 times their spread: steps of 3.5 / 127, twice, uniform errors.
     */
    assert_true(f->out.worst > 0.007 && f->out.worst < 0.016);
    assert_true(f->out.bytes >= (size_t)ROWS * COLS);
    char *text = dk_nn_quantized_text(&f->out);
    assert_non_null(strstr(text, "int8: 1 layers, 0.0 MB, largest error 0.0"));
    assert_non_null(strstr(text, "(blocks.0.plain), 0 kept as stored"));
    dk_free(text);
}

static void a_layer_above_the_bound_is_kept_and_named(void **state)
{
    fixture *f = *state;
    dk_error err;
    const dk_log log = {.write = keep_line, .context = f, .level = DK_LOG_WARNING};
    dk_nn_quantizer q = quantizer_of(f, &log, 0.03);
    assert_ok(dk_nn_quantize(&q, &f->spiked, "blocks.1.spiked", &err), err);
    assert_null(f->spiked.quantized);
    assert_true(f->out.layers == 0 && f->out.kept == 1);
    assert_non_null(
        strstr(f->line, "blocks.1.spiked stays as stored: in int8 its error is 0."));
    assert_non_null(strstr(f->line, "accepted is up to 0.03"));
    char *text = dk_nn_quantized_text(&f->out);
    assert_non_null(strstr(text, "1 kept as stored: blocks.1.spiked (0."));
    dk_free(text);
}

static void broken_weights_are_kept(void **state)
{
    fixture *f = *state;
    dk_error err;
    dk_nn_quantizer q = quantizer_of(f, NULL, 1.0);
    ((float *)f->plain.weight.data)[7] = NAN;
    assert_ok(dk_nn_quantize(&q, &f->plain, "x", &err), err);
    assert_true(f->plain.quantized == NULL && f->out.kept == 1);
}

/* Sums of so many products would leave int32. */
static void layers_too_deep_are_kept(void **state)
{
    fixture *f = *state;
    dk_error err;
    int64_t depth = DK_GEMM_INT8_DEPTH + 1;
    float *values = dk_alloc((size_t)depth * sizeof *values);
    dk_nn_linear deep = {.weight = DK_TENSOR(values, DK_F32, 1, depth)};
    dk_nn_quantizer q = quantizer_of(f, NULL, 1.0);
    assert_ok(dk_nn_quantize(&q, &deep, "deep", &err), err);
    assert_true(deep.quantized == NULL && f->out.layers == 0 && f->out.kept == 1);
    assert_non_null(strstr(dk_string_text(&f->out.kept_names), "deep"));
    dk_free(values);
}

static void stops_on_request(void **state)
{
    fixture *f = *state;
    dk_error err;
    atomic_bool cancel;
    atomic_init(&cancel, true);
    dk_nn_quantizer q = quantizer_of(f, NULL, 0.03);
    q.cancel = &cancel;
    assert_int_equal(dk_nn_quantize(&q, &f->plain, "x", &err), DK_CANCELLED);
    assert_null(f->plain.quantized);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(good_layers_become_int8, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_layer_above_the_bound_is_kept_and_named, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(broken_weights_are_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(layers_too_deep_are_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stops_on_request, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
