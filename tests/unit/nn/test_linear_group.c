/* Layers of one src: a group gives the bits that the layers give one by one. */
#include "test.h"

#include <string.h>

#include "base/alloc.h"
#include "device/cpu/cpu_device.h"
#include "nn/layers.h"
#include "tensor/convert.h"

enum { LAYERS = 4, DEPTH = 600, MOST_COLS = 700 };

/* The third layer is wide, so that memory grows in the middle of the group; the last one reads
   what the first one wrote. */
static const int64_t columns[LAYERS] = {40, 3, MOST_COLS, 40};

static dk_tensor random_tensor(dk_dtype type, int64_t rows, int64_t cols, uint32_t seed)
{
    void *data = dk_alloc((size_t)(rows * cols) * dk_dtype_bytes(type));
    for (int64_t i = 0; i < rows * cols; i++) {
        seed = seed * 1664525u + 1013904223u;
        float value = (float)(seed >> 8) / (float)(1 << 23) - 1.0f;
        dk_convert_from_f32((char *)data + (size_t)i * dk_dtype_bytes(type), type, &value, 1);
    }
    return DK_TENSOR(data, type, rows, cols);
}

static void check_group(bool exact, int64_t rows)
{
    dk_error err;
    dk_device *device;
    dk_nn nn;
    dk_dtype type = exact ? DK_F32 : DK_BF16;
    const dk_device_options options = {.threads = 2, .exact = exact};
    dk_tensor src = random_tensor(type, rows, DEPTH, 1), one[LAYERS], group[LAYERS];
    dk_nn_linear layers[LAYERS] = {0};
    dk_nn_linear_call calls[LAYERS];
    const dk_nn_epilogue gated[2] = {
        {.activation = DK_ACT_SILU, .multiply = &one[0]},
        {.activation = DK_ACT_SILU, .multiply = &group[0]},
    };
    assert_ok(dk_cpu_device_open(&device, &options, &err), err);
    dk_nn_init(&nn, device, type, NULL);
    for (int i = 0; i < LAYERS; i++) {
        layers[i].weight = random_tensor(DK_BF16, columns[i], DEPTH, 7 + (uint32_t)i);
        one[i] = random_tensor(type, rows, columns[i], 20);
        group[i] = random_tensor(type, rows, columns[i], 30);
        calls[i] = (dk_nn_linear_call){&layers[i], &group[i], i == 3 ? &gated[1] : NULL};
    }
    dk_nn_linear_group(&nn, &src, calls, LAYERS);
    for (int i = 0; i < LAYERS; i++) {
        dk_nn_linear_forward(&nn, &layers[i], &one[i], &src, i == 3 ? &gated[0] : NULL);
    }
    assert_ok(dk_device_sync(device, &err), err);
    for (int i = 0; i < LAYERS; i++) {
        assert_memory_equal(one[i].data, group[i].data, dk_tensor_bytes(&one[i]));
        dk_free(layers[i].weight.data);
        dk_free(one[i].data);
        dk_free(group[i].data);
    }
    dk_free(src.data);
    dk_device_close(&device);
}

static void groups_equal_single_layers(void **state)
{
    (void)state;
    for (int exact = 0; exact < 2; exact++) {
        check_group(exact, 2);
        check_group(exact, 20);
        check_group(exact, 470);
        check_group(exact, 14500); /* several passes */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(groups_equal_single_layers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
