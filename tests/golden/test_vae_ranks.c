/* The autoencoder's decoder shared out among ranks, in processes of their own: the leader's
   frames are those that it decodes alone, bit for bit on the CPU. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "golden/golden.h"
#include "models/wan/vae.h"
#include "nn/parallel.h"
#include "unit/comm/comm_fixture.h"

#define FAMILY     "wan2.1-t2v"
#define CHECKPOINT "tests/golden/" FAMILY "/checkpoint/vae"

/* As test_wan_models: sums in another order, where a device's depend on the number of rows. In
   bf16 each sum may round the other way, through some 40 layers. */
static const double ABSOLUTE = 1e-4, BF16_RMS = 0.02;

enum { CHANNELS = 3, STOP_NEVER = -1 };

typedef struct rank {
    dk_device *device;
    dk_nn nn;
    dk_comm *world;
    dk_groups groups;
    dk_nn_parallel parallel;
    json_t *config;
    dk_weights *weights;
    dk_wan_vae *vae;
    dk_tensor latent; /* [z_dim][frames * height * width] */
    int64_t frames, height, width;
} rank;

/* In rank 3 of 4 tp and sp both share it out: what counts is the replica's rank. */
static void meet(rank *r, const dk_transport_options *options)
{
    dk_error err;
    const dk_comm_options comm = {.backend = "shm",
                                  .rank = options->rank,
                                  .ranks = options->ranks,
                                  .address = options->address,
                                  .key = options->key,
                                  .deadline_s = 60};
    int tp = options->ranks == 4 ? 2 : 1;
    const dk_layout layout = {
        .tp = tp, .ulysses = options->ranks / tp, .ring = 1, .cfg = 1, .dp = 1};
    assert_ok(dk_comm_open(&r->world, &comm, &err), err);
    assert_ok(dk_groups_create(&r->groups, r->world, &layout, &err), err);
    r->parallel = (dk_nn_parallel){.groups = &r->groups};
    assert_ok(dk_comm_split(&r->parallel.control, r->world, 0, options->rank, "control", &err),
              err);
    assert_ok(dk_comm_split(&r->parallel.orders, r->world, 0, options->rank, "orders", &err),
              err);
}

/* argument: "dtype frames height width". */
static void set_up(rank *r, const dk_transport_options *options, const char *argument)
{
    dk_error err;
    dk_wan_vae_config config;
    char type[8];
    long long f, h, w;
    *r = (rank){0};
    assert_int_equal(sscanf(argument, "%7s %lld %lld %lld", type, &f, &h, &w), 4);
    bool exact = strcmp(type, "f32") == 0;
    r->device = golden_device(exact);
    r->frames = f;
    r->height = h;
    r->width = w;
    dk_nn_init(&r->nn, r->device, exact ? DK_F32 : DK_BF16, NULL);
    assert_ok(dk_json_load(&r->config, CHECKPOINT "/config.json", DK_JSON_CONFIG_BYTES, &err),
              err);
    assert_ok(dk_weights_open(&r->weights, CHECKPOINT, &err), err);
    dk_weights_attach(r->weights, r->device, DK_COMPONENT_VAE);
    assert_ok(dk_wan_vae_config_parse(&config, r->config, "config.json", &err), err);
    assert_ok(dk_wan_vae_create(&r->vae, &config, r->weights, r->device, DK_WAN_VAE_DECODER,
                                "vae", &err),
              err);
    int64_t count = config.z_dim * f * h * w;
    float *values = test_malloc((size_t)count * sizeof *values);
    uint32_t state = 7;
    for (int64_t i = 0; i < count; i++) {
        values[i] = (float)(known_number(&state) % 4001) / 1000.0f - 2.0f;
    }
    void *memory;
    assert_ok(
        dk_device_alloc(r->device, &memory, (size_t)count * sizeof *values, "a latent", &err),
        err);
    dk_device_write(r->device, memory, values, (size_t)count * sizeof *values);
    assert_ok(dk_device_sync(r->device, &err), err);
    test_free(values);
    r->latent = DK_TENSOR(memory, DK_F32, config.z_dim, f * h * w);
    meet(r, options);
}

static void tear_down(rank *r)
{
    dk_device_free(r->device, r->latent.data);
    dk_wan_vae_destroy(&r->vae);
    dk_weights_unref(r->weights);
    json_decref(r->config);
    dk_nn_release(&r->nn);
    dk_comm_close(&r->parallel.orders);
    dk_comm_close(&r->parallel.control);
    dk_groups_release(&r->groups);
    dk_comm_close(&r->world);
    dk_device_close(&r->device);
}

/* What comes out, and what happens after the chunk that starts at frame stop_at. */
typedef struct output {
    const rank *r;
    float *values; /* [frames][height][width][3] */
    int64_t stop_at;
    atomic_bool cancel;
    bool fails; /* instead of a wish to stop */
    int chunks;
} output;

static dk_status take(void *context, int64_t first, int64_t count, const dk_tensor *sample,
                      dk_error *err)
{
    output *o = context;
    int64_t frame = dk_tensor_count(sample) / count;
    float *values = golden_read(o->r->device, sample->data, dk_tensor_count(sample));
    memcpy(o->values + first * frame, values, dk_tensor_bytes(sample));
    test_free(values);
    o->chunks++;
    if (first == o->stop_at && o->fails) {
        return dk_fail(err, DK_FORMAT, "the caller cannot take it");
    }
    atomic_store(&o->cancel, first == o->stop_at);
    return DK_OK;
}

static int64_t output_count(const rank *r)
{
    const dk_wan_vae_config *c = dk_wan_vae_get_config(r->vae);
    int64_t pixels = r->height * r->width * c->spatial_factor * c->spatial_factor;
    return (1 + (r->frames - 1) * c->temporal_factor) * pixels * CHANNELS;
}

static void begin(output *o, const rank *r)
{
    *o = (output){.r = r, .stop_at = STOP_NEVER};
    o->values = test_malloc((size_t)output_count(r) * sizeof *o->values);
}

static size_t measure(rank *r, output *o)
{
    dk_error err;
    dk_nn_dry_begin(&r->nn);
    assert_ok(dk_wan_vae_decode(&r->nn, r->vae, &r->latent, r->frames, r->height, r->width,
                                take, o, &err),
              err);
    assert_ok(dk_nn_dry_end(&r->nn, &err), err);
    return r->nn.temp.peak + r->nn.keep.peak;
}

static dk_status decode(rank *r, output *o, dk_error *err)
{
    r->nn.cancel = &o->cancel;
    measure(r, o);
    return dk_wan_vae_decode(&r->nn, r->vae, &r->latent, r->frames, r->height, r->width, take,
                             o, err);
}

static bool sums_alike(void)
{
    return strcmp(golden_device_name(), "cpu") == 0;
}

/* The leader's frames against those it decoded alone. */
static dk_status compare(const rank *r, const output *shared, const output *alone,
                         dk_error *err)
{
    int64_t count = output_count(r), differ = 0, first = 0;
    double rms = golden_rms(shared->values, alone->values, count), most = 0;
    for (int64_t i = count; i-- > 0;) {
        if (memcmp(&shared->values[i], &alone->values[i], sizeof(float)) != 0) {
            first = i;
            differ++;
            most = fmax(most, fabs((double)shared->values[i] - (double)alone->values[i]));
        }
    }
    bool fine = sums_alike()           ? differ == 0
                : r->nn.type == DK_F32 ? most < ABSOLUTE
                                       : rms < BF16_RMS;
    return fine ? DK_OK
                : dk_fail(err, DK_MISMATCH,
                          "%lld of %lld values differ, by up to %g, rms %g; the first in row "
                          "%lld",
                          (long long)differ, (long long)count, most, rms,
                          (long long)(first / (CHANNELS * 8 * r->width)));
}

/* A rank's memory is not much more than its share, unless it is the leader of a miniature,
   whose whole frames are as large as its activations. */
static dk_status compare_peaks(rank *r, output *o, const dk_transport_options *options,
                               dk_error *err)
{
    enum { ROWS_EACH = 8 };
    static const double over = 1.35;
    r->nn.parallel = NULL;
    size_t whole = measure(r, o);
    r->nn.parallel = &r->parallel;
    size_t part = measure(r, o);
    if (options->rank == 0 || r->height < ROWS_EACH * options->ranks ||
        (double)part < over * (double)whole / options->ranks) {
        return DK_OK;
    }
    return dk_fail(err, DK_MISMATCH, "%zu bytes on one of %d ranks, %zu on one alone", part,
                   options->ranks, whole);
}

static dk_status decode_twice(const dk_transport_options *options, const char *argument,
                              bool staged, dk_error *err)
{
    rank r;
    output alone, shared;
    set_up(&r, options, argument);
    r.device->host_memory = r.device->host_memory && !staged;
    begin(&alone, &r);
    begin(&shared, &r);
    if (options->rank == 0) {
        assert_ok(decode(&r, &alone, err), *err);
    }
    r.nn.parallel = &r.parallel;
    dk_status status = decode(&r, &shared, err);
    if (options->rank == 0 && status == DK_OK) {
        assert_int_equal(shared.chunks, r.frames);
        status = compare(&r, &shared, &alone, err);
    }
    if (status == DK_OK) {
        status = compare_peaks(&r, &shared, options, err);
    }
    assert_true(options->rank == 0 || shared.chunks == 0);
    test_free(alone.values);
    test_free(shared.values);
    tear_down(&r);
    return status;
}

static dk_status run_equal(const dk_transport_options *options, const char *argument,
                           dk_error *err)
{
    return decode_twice(options, argument, false, err);
}

/* What travels between ranks goes through memory of the host's. */
static dk_status run_staged(const dk_transport_options *options, const char *argument,
                            dk_error *err)
{
    return decode_twice(options, argument, true, err);
}

/* Ends with how the decoding ended. */
static dk_status run_stopped(const dk_transport_options *options, const char *argument,
                             dk_error *err, bool fails)
{
    rank r;
    output o;
    set_up(&r, options, argument);
    begin(&o, &r);
    o.stop_at = 1;
    o.fails = fails;
    r.nn.parallel = &r.parallel;
    dk_status status = decode(&r, &o, err);
    assert_true(r.nn.agreed);
    assert_int_equal(o.chunks, options->rank == 0 ? 2 : 0);
    test_free(o.values);
    tear_down(&r);
    return status;
}

static dk_status run_cancelled(const dk_transport_options *options, const char *argument,
                               dk_error *err)
{
    return run_stopped(options, argument, err, false);
}

static dk_status run_failing(const dk_transport_options *options, const char *argument,
                             dk_error *err)
{
    return run_stopped(options, argument, err, true);
}

/* One rank's device fails half-way. */
static dk_status run_broken(const dk_transport_options *options, const char *argument,
                            dk_error *err)
{
    rank r;
    output o;
    set_up(&r, options, argument);
    begin(&o, &r);
    r.nn.parallel = &r.parallel;
    assert_ok(decode(&r, &o, err), *err);
    if (options->rank == options->ranks - 1) {
        r.nn.keep.size -= DK_ALIGNMENT;
    }
    dk_status status =
        dk_wan_vae_decode(&r.nn, r.vae, &r.latent, r.frames, r.height, r.width, take, &o, err);
    test_free(o.values);
    tear_down(&r);
    return status;
}

static const rank_case cases[] = {{"equal", run_equal},
                                  {"staged", run_staged},
                                  {"cancelled", run_cancelled},
                                  {"failing", run_failing},
                                  {"broken", run_broken}};

/* Uneven parts, a row for each rank, fewer rows than ranks, even parts. On a device that builds
   kernels and primitives in every process, the first alone. */
static void check_equal(const char *type)
{
    static const char *const sizes[] = {"3 7 9", "2 3 40", "2 2 5", "2 1 4", "1 4 6", "3 33 9"};
    size_t count = sums_alike() ? sizeof sizes / sizeof *sizes : 1;
    for (int ranks = 2; ranks <= (sums_alike() ? 4 : 2); ranks++) {
        for (size_t i = 0; i < count; i++) {
            char argument[64];
            snprintf(argument, sizeof argument, "%s %s", type, sizes[i]);
            run_ranks("equal", ranks, argument);
        }
    }
}

static void equal_f32(void **state)
{
    (void)state;
    check_equal("f32");
}

static void equal_bf16(void **state)
{
    (void)state;
    check_equal("bf16");
}

static void equal_staged(void **state)
{
    (void)state;
    run_ranks("staged", 2, "f32 2 5 6");
    run_ranks("staged", sums_alike() ? 3 : 2, "bf16 2 2 6");
}

static void check_ends(const char *name, const char *argument, dk_status expected,
                       const char *leader, const char *others)
{
    rank_set set;
    rank_end ends[MOST_RANKS];
    start_ranks(&set, name, 3, argument, NULL);
    end_ranks(&set, ends);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ends[i].status, expected);
        assert_non_null(strstr(ends[i].text, i == 0 ? leader : others));
    }
}

static void all_stop(void **state)
{
    (void)state;
    check_ends("cancelled", "f32 4 6 6", DK_CANCELLED, "stopped on request",
               "stopped on request");
    check_ends("failing", "f32 4 6 6", DK_FORMAT, "the caller cannot take it",
               "another rank of the replica failed");
    if (!sums_alike()) {
        return;
    }
    check_ends("failing", "f32 4 2 6", DK_FORMAT, "the caller cannot take it",
               "another rank of the replica failed");
    check_ends("broken", "f32 3 6 6", DK_INTERNAL, "another rank of the replica failed", "");
}

int main(int argc, char **argv)
{
    int code;
    if (ran_as_rank(argc, argv, cases, sizeof cases / sizeof *cases, &code)) {
        return code;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_f32),
        cmocka_unit_test(equal_bf16),
        cmocka_unit_test(equal_staged),
        cmocka_unit_test(all_stop),
    };
    return golden_level_is_here() ? cmocka_run_group_tests(tests, NULL, NULL) : GOLDEN_SKIPPED;
}
