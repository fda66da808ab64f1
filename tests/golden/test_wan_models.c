/* The Wan models tensor by tensor: text encoder, transformer, autoencoder, on their own. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "golden/golden.h"
#include "models/t5/encoder.h"
#include "models/wan/dit.h"
#include "models/wan/vae.h"

/* Of tests/golden/wan2.1-t2v: sums in another order; see the tolerances in its README. */
static const double MODEL_ABSOLUTE = 2e-5, MODEL_RELATIVE = 1e-4, VAE_ABSOLUTE = 1e-4;

#define FAMILY     "wan2.1-t2v"
#define CHECKPOINT "tests/golden/" FAMILY "/checkpoint/"

typedef struct fixture {
    dk_device *device;
    dk_nn nn;
    json_t *config;
    dk_weights *weights;
} fixture;

static void set_up(fixture *f, dk_component kind)
{
    char path[256];
    dk_error err;
    const char *component = dk_component_names[kind];
    *f = (fixture){.device = golden_device(true)};
    dk_nn_init(&f->nn, f->device, DK_F32, NULL);
    snprintf(path, sizeof path, CHECKPOINT "%s/config.json", component);
    assert_ok(dk_json_load(&f->config, path, DK_JSON_CONFIG_BYTES, &err), err);
    snprintf(path, sizeof path, CHECKPOINT "%s", component);
    assert_ok(dk_weights_open(&f->weights, path, &err), err);
    dk_weights_attach(f->weights, f->device, kind);
}

/* A tensor of the reference, in the device's memory; owned:
   dk_device_free. values NULL: what lies there does not matter. */
static dk_tensor on_device(const fixture *f, const float *values, int64_t rows, int64_t cols)
{
    void *memory = NULL;
    dk_error err;
    dk_tensor made;
    size_t bytes = (size_t)(rows * cols) * sizeof *values;
    assert_ok(dk_device_alloc(f->device, &memory, bytes, "a test's tensor", &err), err);
    if (values != NULL) {
        dk_device_write(f->device, memory, values, bytes);
    }
    made = DK_TENSOR(memory, DK_F32, rows, cols);
    return made;
}

/* Compares a tensor of the device with the reference, as assert_close does. */
static void assert_device_close(const fixture *f, const char *what, const dk_tensor *actual,
                                const float *expected, double absolute, double relative)
{
    int64_t count = dk_tensor_count(actual);
    float *values = golden_read(f->device, actual->data, count);
    assert_close(what, values, expected, count, absolute, relative);
    test_free(values);
}

static void tear_down(fixture *f)
{
    dk_weights_unref(f->weights);
    json_decref(f->config);
    dk_nn_release(&f->nn);
    dk_device_close(&f->device);
}

/* A case's tensors by name of the file. */
static dk_safetensors *open_case(const char *name)
{
    char file[128];
    snprintf(file, sizeof file, "%s.safetensors", name);
    return golden_open(FAMILY, file);
}

static void encode_text(fixture *f, const dk_t5_encoder *encoder, const int32_t *ids, int count,
                        float *out)
{
    dk_error err;
    for (int dry = 1; dry >= 0; dry--) {
        if (dry) {
            dk_nn_dry_begin(&f->nn);
        }
        dk_tensor hidden =
            dk_nn_keep(&f->nn, DK_F32, count, dk_t5_encoder_config(encoder)->d_model);
        assert_ok(dk_t5_encoder_forward(&f->nn, encoder, &hidden, ids, count, &err), err);
        if (dry) {
            assert_ok(dk_nn_dry_end(&f->nn, &err), err);
        } else {
            dk_device_read(f->device, out, hidden.data, dk_tensor_bytes(&hidden));
            assert_ok(dk_device_sync(f->device, &err), err);
        }
    }
}

static void text_encoder(void **state)
{
    (void)state;
    fixture f;
    dk_error err;
    dk_t5_config config;
    dk_t5_encoder *encoder;
    set_up(&f, DK_COMPONENT_TEXT_ENCODER);
    assert_ok(dk_t5_config_parse(&config, f.config, "config.json", &err), err);
    assert_ok(dk_t5_encoder_create(&encoder, &config, f.weights, "text_encoder", &err), err);
    dk_safetensors *tokens = open_case("tokens"), *embeds = open_case("text_encoder");
    for (int i = 0; i < 3; i++) {
        const dk_tensor *ids = golden_tensor(tokens, "ids.%d", i);
        const dk_tensor *expected = golden_tensor(embeds, "embeds.%d", i);
        int count = (int)dk_tensor_count(ids);
        assert_int_equal(ids->dtype, DK_I32);
        assert_int_equal(expected->shape[0], count);
        float *actual = test_malloc(dk_tensor_bytes(expected));
        encode_text(&f, encoder, ids->data, count, actual);
        assert_close("embeds", actual, expected->data, dk_tensor_count(expected),
                     MODEL_ABSOLUTE, MODEL_RELATIVE);
        test_free(actual);
    }
    dk_safetensors_close(&tokens);
    dk_safetensors_close(&embeds);
    dk_t5_encoder_destroy(&encoder);
    tear_down(&f);
}

typedef struct tapped {
    const fixture *fixture;
    const dk_safetensors *file;
    int64_t sample;
    int seen;
} tapped;

/* Every block's output against block.<i> of the case. */
static void check_block(void *context, const char *name, const dk_tensor *tensor)
{
    tapped *t = context;
    int64_t count = dk_tensor_count(tensor);
    assert_device_close(t->fixture, name, tensor,
                        golden_floats(t->file, "%s", name) + t->sample * count, MODEL_ABSOLUTE,
                        MODEL_RELATIVE);
    t->seen++;
}

static void run_dit(fixture *f, const dk_wan_dit *dit, const dk_safetensors *file,
                    int64_t sample, const dk_tensor *out)
{
    const dk_tensor *hidden = golden_tensor(file, "hidden_states");
    const dk_tensor *text = golden_tensor(file, "encoder_hidden_states");
    int64_t pixels = hidden->shape[2] * hidden->shape[3] * hidden->shape[4];
    int64_t channels = hidden->shape[1], rows = text->shape[1], width = text->shape[2];
    float timestep =
        golden_tensor(file, "timestep")->dtype == DK_F32
            ? golden_floats(file, "timestep")[sample]
            : (float)((const int32_t *)golden_tensor(file, "timestep")->data)[sample];
    dk_error err;
    dk_tensor embeds =
        on_device(f, (const float *)text->data + sample * rows * width, rows, width);
    dk_tensor latent = on_device(f, (const float *)hidden->data + sample * channels * pixels,
                                 channels, pixels);
    for (int dry = 1; dry >= 0; dry--) {
        dk_wan_dit_grid grid;
        dk_wan_dit_text prompt;
        if (dry) {
            dk_nn_dry_begin(&f->nn);
        }
        assert_ok(dk_wan_dit_grid_init(&f->nn, dit, &grid, hidden->shape[2], hidden->shape[3],
                                       hidden->shape[4], &err),
                  err);
        assert_ok(dk_wan_dit_text_init(&f->nn, dit, &prompt, &embeds, 0, &err), err);
        assert_ok(dk_wan_dit_forward(&f->nn, dit, &grid, &prompt, out, &latent, timestep, &err),
                  err);
        dk_wan_dit_text_release(&prompt);
        if (dry) {
            assert_ok(dk_nn_dry_end(&f->nn, &err), err);
        }
    }
    dk_device_free(f->device, embeds.data);
    dk_device_free(f->device, latent.data);
}

static void check_dit(const char *name)
{
    fixture f;
    dk_error err;
    dk_wan_dit_config config;
    dk_wan_dit *dit;
    set_up(&f, DK_COMPONENT_TRANSFORMER);
    assert_ok(dk_wan_dit_config_parse(&config, f.config, "config.json", &err), err);
    assert_ok(dk_wan_dit_create(&dit, &config, f.weights, "transformer", &err), err);
    dk_safetensors *file = open_case(name);
    const dk_tensor *expected = golden_tensor(file, "output");
    int64_t count = dk_tensor_count(expected) / expected->shape[0];
    dk_tensor actual = on_device(&f, NULL, 1, count);
    for (int64_t sample = 0; sample < expected->shape[0]; sample++) {
        tapped tap = {.fixture = &f, .file = file, .sample = sample};
        f.nn.tap = check_block;
        f.nn.tap_context = &tap;
        run_dit(&f, dit, file, sample, &actual);
        assert_int_equal(tap.seen, config.layers);
        assert_device_close(&f, name, &actual, (const float *)expected->data + sample * count,
                            MODEL_ABSOLUTE, MODEL_RELATIVE);
    }
    dk_device_free(f.device, actual.data);
    dk_safetensors_close(&file);
    dk_wan_dit_destroy(&dit);
    tear_down(&f);
}

static void dit_video(void **state)
{
    (void)state;
    check_dit("dit_forward");
}

static void dit_image(void **state)
{
    (void)state;
    check_dit("dit_forward_image");
}

static void open_vae(fixture *f, dk_wan_vae **vae, unsigned parts)
{
    dk_error err;
    dk_wan_vae_config config;
    set_up(f, DK_COMPONENT_VAE);
    assert_ok(dk_wan_vae_config_parse(&config, f->config, "config.json", &err), err);
    assert_ok(dk_wan_vae_create(vae, &config, f->weights, f->device, parts, "vae", &err), err);
}

/* Gathers emitted frames as [3][frames][height][width], clamped as diffusers does. */
typedef struct gathered {
    dk_device *device;
    float *values;
    int64_t frames, pixels;
} gathered;

static void take(gathered *g, int64_t first, int64_t count, const float *values)
{
    for (int64_t i = 0; i < count * g->pixels * 3; i++) {
        int64_t frame = first + i / (g->pixels * 3), pixel = i / 3 % g->pixels, channel = i % 3;
        assert_true(frame < g->frames);
        g->values[(channel * g->frames + frame) * g->pixels + pixel] =
            fmaxf(-1.0f, fminf(1.0f, values[i]));
    }
}

static dk_status gather(void *context, int64_t first, int64_t count, const dk_tensor *sample,
                        dk_error *err)
{
    (void)err;
    gathered *g = context;
    float *values = golden_read(g->device, sample->data, dk_tensor_count(sample));
    take(g, first, count, values);
    test_free(values);
    return DK_OK;
}

/* Of a clip that was put together on the host. */
static dk_status gather_clip(void *context, int64_t first, int64_t count,
                             const dk_tensor *sample, dk_error *err)
{
    (void)err;
    take(context, first, count, sample->data);
    return DK_OK;
}

static void check_decode(const char *name, const dk_wan_vae_tiling *tiling)
{
    fixture f;
    dk_error err;
    dk_wan_vae *vae;
    open_vae(&f, &vae, DK_WAN_VAE_DECODER);
    dk_safetensors *file = open_case(name);
    const dk_tensor *latents = golden_tensor(file, "latents");
    const dk_tensor *expected = golden_tensor(file, "sample");
    const int64_t *shape = latents->shape;
    int64_t pixels = shape[2] * shape[3] * shape[4];
    gathered g = {.device = f.device,
                  .values = test_malloc(dk_tensor_bytes(expected)),
                  .frames = expected->shape[2],
                  .pixels = expected->shape[3] * expected->shape[4]};
    dk_tensor host = DK_TENSOR(latents->data, DK_F32, shape[1], pixels);
    dk_tensor latent = on_device(&f, latents->data, shape[1], pixels);
    dk_nn_dry_begin(&f.nn);
    assert_ok(
        dk_wan_vae_decode(&f.nn, vae, &latent, shape[2], shape[3], shape[4], gather, &g, &err),
        err);
    assert_ok(dk_nn_dry_end(&f.nn, &err), err);
    if (tiling != NULL) {
        assert_ok(dk_wan_vae_decode_tiled(&f.nn, vae, &host, shape[2], shape[3], shape[4],
                                          tiling, gather_clip, &g, &err),
                  err);
    } else {
        assert_ok(dk_wan_vae_decode(&f.nn, vae, &latent, shape[2], shape[3], shape[4], gather,
                                    &g, &err),
                  err);
    }
    assert_close(name, g.values, expected->data, dk_tensor_count(expected), VAE_ABSOLUTE, 0);
    test_free(g.values);
    dk_device_free(f.device, latent.data);
    dk_safetensors_close(&file);
    dk_wan_vae_destroy(&vae);
    tear_down(&f);
}

static void vae_decode_image(void **state)
{
    (void)state;
    check_decode("vae_decode_image", NULL);
}

static void vae_decode_video(void **state)
{
    (void)state;
    check_decode("vae_decode_video", NULL);
}

static void vae_decode_tiled(void **state)
{
    (void)state;
    check_decode("vae_decode_tiled",
                 &(dk_wan_vae_tiling){
                     .height = 32, .width = 32, .stride_height = 24, .stride_width = 24});
}

static void check_encode(const char *name)
{
    fixture f;
    dk_error err;
    dk_wan_vae *vae;
    open_vae(&f, &vae, DK_WAN_VAE_ENCODER);
    dk_safetensors *file = open_case(name);
    const dk_tensor *video = golden_tensor(file, "video"), *mean = golden_tensor(file, "mean");
    const int64_t *shape = video->shape;
    int64_t count = dk_tensor_count(mean);
    dk_tensor pixels = on_device(&f, video->data, shape[1], shape[2] * shape[3] * shape[4]);
    dk_tensor moments = on_device(&f, NULL, 2 * mean->shape[1], count / mean->shape[1]);
    for (int dry = 1; dry >= 0; dry--) {
        if (dry) {
            dk_nn_dry_begin(&f.nn);
        }
        assert_ok(dk_wan_vae_encode(&f.nn, vae, &moments, &pixels, shape[2], shape[3], shape[4],
                                    &err),
                  err);
        if (dry) {
            assert_ok(dk_nn_dry_end(&f.nn, &err), err);
        }
    }
    float *actual = golden_read(f.device, moments.data, 2 * count);
    assert_close("mean", actual, mean->data, count, VAE_ABSOLUTE, 0);
    assert_close("logvar", actual + count, golden_floats(file, "logvar"), count, VAE_ABSOLUTE,
                 0);
    test_free(actual);
    dk_device_free(f.device, pixels.data);
    dk_device_free(f.device, moments.data);
    dk_safetensors_close(&file);
    dk_wan_vae_destroy(&vae);
    tear_down(&f);
}

static void vae_encode_image(void **state)
{
    (void)state;
    check_encode("vae_encode_image");
}

static void vae_encode_video(void **state)
{
    (void)state;
    check_encode("vae_encode_video");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_encoder),     cmocka_unit_test(dit_video),
        cmocka_unit_test(dit_image),        cmocka_unit_test(vae_decode_image),
        cmocka_unit_test(vae_decode_video), cmocka_unit_test(vae_decode_tiled),
        cmocka_unit_test(vae_encode_image), cmocka_unit_test(vae_encode_video),
    };
    return golden_level_is_here() ? cmocka_run_group_tests(tests, NULL, NULL) : GOLDEN_SKIPPED;
}
