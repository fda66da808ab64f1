/* One model stored in different ways gives the same frames: sharded, at odd addresses, in every
   float type (against the same values widened to F32). */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "darkroom/darkroom.h"
#include "scratch.h"
#include "tensor/convert.h"
#include "weights/weights.h"

#define MODEL "tests/golden/wan2.1-t2v/checkpoint/"

static const struct {
    const char *folder, *stem;
} components[] = {{"text_encoder", "model"},
                  {"transformer", "diffusion_pytorch_model"},
                  {"vae", "diffusion_pytorch_model"}};
enum { COMPONENTS = sizeof components / sizeof *components };

static const char *const others[] = {
    "model_index.json",        "scheduler",      "tokenizer", "text_encoder/config.json",
    "transformer/config.json", "vae/config.json"};

/* A model folder without weights. */
static char *create_model(void)
{
    char *folder = scratch_create();
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *target = dk_path_join(MODEL, others[i]);
        scratch_link(folder, others[i], target);
        dk_free(target);
    }
    return folder;
}

static dk_weights *open_component(int i)
{
    dk_error err;
    dk_weights *weights;
    char *path = dk_path_join(MODEL, components[i].folder);
    assert_ok(dk_weights_open(&weights, path, &err), err);
    dk_free(path);
    return weights;
}

static char *file_path(const char *folder, int i, const char *ending)
{
    char name[128];
    snprintf(name, sizeof name, "%s/%s%s", components[i].folder, components[i].stem, ending);
    return scratch_path(folder, name);
}

static void generate(dk_result *result, const char *folder, const char *dtype)
{
    dk_error err;
    dk_engine *engine;
    dk_engine_options options;
    dk_request request;
    dk_engine_options_init(&options);
    options.model_path = folder;
    options.dtype = dtype;
    options.threads = 2;
    /* Where bf16 products are the processor's, layers of few rows read bf16 weights as they
       are, but multiply f32 ones as f32: more exact, and other sums. */
    options.cpu_level = "avx2";
    assert_ok(dk_engine_open(&engine, &options, &err), err);
    dk_request_init(&request, engine);
    request.prompt = "a cat";
    request.width = request.height = 32;
    request.num_frames = 5;
    request.num_inference_steps = 2;
    assert_ok(dk_generate(engine, &request, NULL, NULL, result, &err), err);
    dk_engine_close(&engine);
}

/* Both models, in both modes, make the same frames. */
static void assert_same_frames(const char *a, const char *b)
{
    static const char *const dtypes[] = {"f32", "bf16"};
    for (int i = 0; i < 2; i++) {
        dk_result one, other;
        generate(&one, a, dtypes[i]);
        generate(&other, b, dtypes[i]);
        size_t bytes = (size_t)one.frames * (size_t)one.width * (size_t)one.height * 3;
        assert_memory_equal(one.rgb, other.rgb, bytes);
        dk_result_release(&one);
        dk_result_release(&other);
    }
}

/* The header grows by `shift` spaces, so that the data lies at an odd address. */
static void write_shifted(const char *folder, int i, int shift)
{
    dk_error err;
    char *from = dk_path_join(MODEL, components[i].folder), name[64], *path, *bytes;
    size_t size;
    uint64_t length;
    snprintf(name, sizeof name, "%s.safetensors", components[i].stem);
    path = dk_path_join(from, name);
    assert_ok(dk_file_read(&bytes, &size, path, 1 << 28, &err), err);
    dk_free(path);
    path = file_path(folder, i, ".safetensors");
    memcpy(&length, bytes, sizeof length);
    length += (uint64_t)shift;
    memcpy(bytes, &length, sizeof length);
    FILE *file = fopen(path, "wb");
    size_t head = sizeof length + (size_t)length - (size_t)shift;
    assert_int_equal(fwrite(bytes, 1, head, file), head);
    for (int k = 0; k < shift; k++) {
        fputc(' ', file);
    }
    assert_int_equal(fwrite(bytes + head, 1, size - head, file), size - head);
    assert_int_equal(fclose(file), 0);
    dk_free(bytes);
    dk_free(path);
    dk_free(from);
}

static void test_odd_addresses(void **state)
{
    (void)state;
    for (int shift = 1; shift < 4; shift++) {
        char *folder = create_model();
        for (int i = 0; i < COMPONENTS; i++) {
            write_shifted(folder, i, shift);
        }
        assert_same_frames(folder, MODEL);
        scratch_remove(folder);
    }
}

static void test_shards(void **state)
{
    (void)state;
    dk_error err;
    char *folder = create_model();
    for (int i = 0; i < COMPONENTS; i++) {
        dk_weights *weights = open_component(i);
        int count = dk_weights_count(weights), shards = 3;
        json_t *map = json_object();
        for (int shard = 0; shard < shards; shard++) {
            dk_safetensors_entry *entries = dk_alloc((size_t)count * sizeof *entries);
            char name[128], *path;
            int used = 0;
            snprintf(name, sizeof name, "%s-%05d-of-%05d.safetensors", components[i].stem,
                     shard + 1, shards);
            for (int k = shard; k < count; k += shards) {
                const dk_weight *weight = dk_weights_at(weights, k);
                entries[used++] = (dk_safetensors_entry){weight->name, weight->tensor};
                json_object_set_new(map, weight->name, json_string(name));
            }
            path = file_path(folder, i, name + strlen(components[i].stem));
            assert_ok(dk_safetensors_write(path, entries, used, &err), err);
            dk_free(path);
            dk_free(entries);
        }
        json_t *index =
            json_pack("{s:{s:i}, s:o}", "metadata", "total_size", 1, "weight_map", map);
        char *path = file_path(folder, i, ".safetensors.index.json");
        assert_int_equal(json_dump_file(index, path, 0), 0);
        dk_free(path);
        json_decref(index);
        dk_weights_unref(weights);
    }
    assert_same_frames(folder, MODEL);
    scratch_remove(folder);
}

static unsigned char f8_from(float value, dk_dtype dtype)
{
    unsigned char best = 0;
    float distance = 1e30f;
    for (int bits = 0; bits < 256; bits++) {
        float is = dtype == DK_F8_E4M3 ? dk_f32_from_f8_e4m3((uint8_t)bits)
                                       : dk_f32_from_f8_e5m2((uint8_t)bits);
        float off = is > value ? is - value : value - is;
        if (off < distance) {
            distance = off;
            best = (unsigned char)bits;
        }
    }
    return best;
}

/* The tensor's values in another type; owned data. */
static dk_tensor recast(const dk_tensor *tensor, dk_dtype dtype)
{
    int64_t count = dk_tensor_count(tensor);
    float *values = dk_alloc((size_t)count * sizeof *values);
    dk_tensor made = *tensor;
    made.dtype = dtype;
    made.data = dk_alloc(dk_tensor_bytes(&made));
    dk_convert_to_f32(values, tensor->data, tensor->dtype, count);
    if (dtype == DK_F32 || dtype == DK_F16 || dtype == DK_BF16) {
        dk_convert_from_f32(made.data, dtype, values, count);
    }
    for (int64_t i = 0; i < count; i++) {
        if (dtype == DK_F64) {
            ((double *)made.data)[i] = (double)values[i];
        } else if (dtype == DK_F8_E4M3 || dtype == DK_F8_E5M2) {
            ((unsigned char *)made.data)[i] = f8_from(values[i], dtype);
        }
    }
    dk_free(values);
    return made;
}

/* Writes all weights in `dtype` below `narrow`, and the same values in F32 below `wide`. */
static void write_types(const char *narrow, const char *wide, dk_dtype dtype)
{
    dk_error err;
    for (int i = 0; i < COMPONENTS; i++) {
        dk_weights *weights = open_component(i);
        int count = dk_weights_count(weights);
        dk_safetensors_entry *a = dk_alloc((size_t)count * sizeof *a),
                             *b = dk_alloc((size_t)count * sizeof *b);
        for (int k = 0; k < count; k++) {
            const dk_weight *weight = dk_weights_at(weights, k);
            a[k] = (dk_safetensors_entry){weight->name, recast(&weight->tensor, dtype)};
            b[k] = (dk_safetensors_entry){weight->name, recast(&a[k].tensor, DK_F32)};
        }
        char *path = file_path(narrow, i, ".safetensors");
        assert_ok(dk_safetensors_write(path, a, count, &err), err);
        dk_free(path);
        path = file_path(wide, i, ".safetensors");
        assert_ok(dk_safetensors_write(path, b, count, &err), err);
        dk_free(path);
        for (int k = 0; k < count; k++) {
            dk_free(a[k].tensor.data);
            dk_free(b[k].tensor.data);
        }
        dk_free(a);
        dk_free(b);
        dk_weights_unref(weights);
    }
}

static void test_types(void **state)
{
    (void)state;
    static const dk_dtype dtypes[] = {DK_F64, DK_F16, DK_BF16, DK_F8_E4M3, DK_F8_E5M2};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        char *narrow = create_model(), *wide = create_model();
        write_types(narrow, wide, dtypes[i]);
        assert_same_frames(narrow, wide);
        scratch_remove(narrow);
        scratch_remove(wide);
    }
}

/* Weights that are no numbers: the frames are not quietly nonsense, and the engine goes on. */
static void test_not_finite(void **state)
{
    (void)state;
    static const char *const names[] = {"encoder.final_layer_norm.weight", "proj_out.bias",
                                        "decoder.conv_out.bias"};
    dk_error err = {0};
    for (int i = 0; i < COMPONENTS; i++) {
        char *folder = create_model(), *path;
        for (int k = 0; k < COMPONENTS; k++) {
            write_shifted(folder, k, 8);
        }
        dk_safetensors *file;
        path = file_path(folder, i, ".safetensors");
        assert_ok(dk_safetensors_open(&file, path, &err), err);
        const dk_tensor *tensor = &dk_safetensors_find(file, names[i])->tensor;
        char *bytes, *at = tensor->data;
        size_t size, behind = 0; /* bytes behind the tensor's start: its place from the end */
        for (int k = 0; k < dk_safetensors_count(file); k++) {
            const dk_tensor *other = &dk_safetensors_at(file, k)->tensor;
            behind += (char *)other->data >= at ? dk_tensor_bytes(other) : 0;
        }
        dk_safetensors_close(&file);
        assert_ok(dk_file_read(&bytes, &size, path, 1 << 28, &err), err);
        const float nan = NAN;
        memcpy(bytes + size - behind, &nan, sizeof nan);
        assert_ok(dk_file_write(path, bytes, size, &err), err);
        dk_free(bytes);
        dk_free(path);

        dk_result result;
        dk_engine *engine;
        dk_engine_options options;
        dk_request request;
        dk_engine_options_init(&options);
        options.model_path = folder;
        options.threads = 2;
        assert_ok(dk_engine_open(&engine, &options, &err), err);
        dk_request_init(&request, engine);
        request.prompt = "a cat";
        request.width = request.height = 32;
        request.num_frames = 1;
        request.num_inference_steps = 1;
        for (int k = 0; k < 2; k++) {
            assert_int_equal(dk_generate(engine, &request, NULL, NULL, &result, &err),
                             DK_INTERNAL);
            assert_useful(&err, "not a number");
        }
        dk_engine_close(&engine);
        scratch_remove(folder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_odd_addresses),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
