/* What a request will take: a dry run of its stages on a device of its own, and the rates that
   the engine's generations had. */
#include <pthread.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "engine/engine_state.h"
#include "engine/recipe.h"
#include "pipeline/planning.h"
#include "tensor/random.h"

struct dk_planner {
    pthread_mutex_t lock;
    dk_device *device; /* NULL before the first plan */
    dk_nn nn;
    dk_wan_vae *encoder; /* bound, not packed; NULL before the first request with a picture */
    double first_rate;   /* of a matrix multiplication, for stages that never ran */
};

dk_planner *dk_planner_create(void)
{
    dk_planner *planner = dk_alloc(sizeof *planner);
    pthread_mutex_init(&planner->lock, NULL);
    return planner;
}

void dk_planner_destroy(dk_planner **planner)
{
    if (*planner != NULL) {
        dk_wan_vae_destroy(&(*planner)->encoder);
        dk_nn_release(&(*planner)->nn);
        dk_device_close(&(*planner)->device);
        pthread_mutex_destroy(&(*planner)->lock);
        dk_free(*planner);
        *planner = NULL;
    }
}

/* A device like the engine's, beside it. */
static dk_device_options options_of(const dk_engine *engine)
{
    return (dk_device_options){.name = engine->device->name,
                               .threads = engine->device->threads,
                               .level = engine->device->level,
                               .exact = engine->device->exact,
                               .attention = engine->device->attention};
}

enum { ROWS = 512, SIDE = 1024, TIMES = 3 };

/* The best rate of a linear layer of this weight, [SIDE][SIDE], on rows of src; the first call
   prepares. */
static dk_status best_rate(double *out, dk_device *device, const float *weight, float *src,
                           dk_error *err)
{
    const dk_linear_args args = {.rows = ROWS,
                                 .cols = SIDE,
                                 .depth = SIDE,
                                 .src = src,
                                 .src_type = DK_F32,
                                 .src_stride = SIDE,
                                 .weight = weight,
                                 .weight_type = DK_F32,
                                 .dst = src + ROWS * SIDE,
                                 .dst_type = DK_F32,
                                 .dst_stride = SIDE};
    *out = 0;
    dk_device_linear(device, &args);
    for (int i = 0; i < TIMES; i++) {
        DK_TRY(dk_device_sync(device, err));
        double start = dk_now_ms();
        dk_device_linear(device, &args);
        DK_TRY(dk_device_sync(device, err));
        double rate = 2.0 * ROWS * SIDE * SIDE / ((dk_now_ms() - start) * 1e-3);
        *out = rate > *out ? rate : *out;
    }
    return DK_OK;
}

/* A linear layer of 512 x 1024 x 1024: what the device does at its best. */
static dk_status measure(double *out, const dk_engine *engine, dk_error *err)
{
    dk_device *device = NULL;
    const dk_device_options options = options_of(engine);
    const size_t weights = (size_t)SIDE * SIDE * sizeof(float);
    const size_t rows = (size_t)2 * ROWS * SIDE * sizeof(float);
    void *weight = NULL, *src = NULL;
    DK_TRY(dk_device_open(&device, &options, err));
    dk_status status = dk_try_alloc(&weight, weights, "a measurement", err);
    if (status == DK_OK) {
        status = dk_device_alloc(device, &src, rows, "a measurement", err);
    }
    if (status == DK_OK) {
        dk_generator generator;
        dk_generator_init(&generator, DK_NOISE_PHILOX, 1);
        dk_generator_randn(&generator, weight, (int64_t)SIDE * SIDE);
        dk_device_adopt(device,
                        &(dk_adoption){.host = weight, .bytes = weights, .name = "measured"});
        dk_device_write(device, src, weight, rows);
        status = best_rate(out, device, weight, src, err);
        dk_device_disown(device, weight);
    }
    dk_device_free(device, src);
    dk_free(weight);
    dk_device_close(&device);
    return status;
}

static dk_status prepare(dk_engine *engine, const dk_request *request, dk_error *err)
{
    dk_planner *p = engine->planner;
    if (p->device == NULL) {
        dk_device_options options = options_of(engine);
        options.plans_only = true;
        DK_TRY(measure(&p->first_rate, engine, err));
        DK_TRY(dk_device_open(&p->device, &options, err));
        dk_nn_init(&p->nn, p->device, engine->nn.type, NULL);
        p->nn.parallel = engine->nn.parallel; /* a part of the rows and heads */
    }
    if (request->image_path != NULL && p->encoder == NULL) {
        const dk_image_encoder *encoder = engine->pipeline->encoder;
        DK_TRY(dk_wan_vae_create(&p->encoder, dk_wan_vae_get_config(engine->pipeline->vae),
                                 encoder->weights, NULL, DK_WAN_VAE_ENCODER, encoder->where,
                                 err));
    }
    return DK_OK;
}

/* Whole stages are slower than one large multiplication. */
static double rate_of(const dk_engine *engine, dk_rate rate)
{
    static const double share = 0.5;
    double known = atomic_load_explicit(&engine->rates.per_second[rate], memory_order_relaxed);
    return known > 0 ? known : engine->planner->first_rate * share;
}

static uint64_t weight_bytes(const dk_engine *engine)
{
    uint64_t bytes = engine->device->packed_bytes;
    char *const *files = engine->pipeline->weight_files;
    for (size_t i = 0; files != NULL && files[i] != NULL; i++) {
        bytes += (uint64_t)dk_file_stamp_of(files[i]).bytes;
    }
    if (engine->pipeline->shards != NULL) {
        const dk_shards_size size = dk_shards_get_size(engine->pipeline->shards);
        bytes = bytes - size.stored + size.most;
    }
    return bytes;
}

static dk_status plan(dk_engine *engine, dk_request *request, dk_plan *out, dk_error *err)
{
    dk_planner *p = engine->planner;
    dk_planning planning = {0};
    dk_job job = {.pipeline = engine->pipeline, .nn = &p->nn, .request = *request};
    DK_TRY(prepare(engine, request, err));
    planning.encoder = p->encoder;
    dk_device_forget_scratch(p->device);
    dk_status status = dk_job_plan(&job, &planning, err);
    if (status == DK_OK) {
        *request = job.request;
        *out = (dk_plan){.weight_bytes = weight_bytes(engine),
                         .peak_bytes = planning.temp_bytes + planning.keep_bytes +
                                       planning.host_bytes + dk_device_scratch_bytes(p->device),
                         .step_flops = planning.step_flops,
                         .step_seconds = planning.step_flops / rate_of(engine, DK_RATE_STEPS)};
        for (int i = DK_RATE_NONE + 1; i < DK_RATE_COUNT; i++) {
            out->flops += planning.flops[i];
            out->seconds += planning.flops[i] / rate_of(engine, (dk_rate)i);
        }
    }
    dk_job_release(&job);
    return status;
}

dk_status dk_engine_plan(dk_engine *engine, dk_request *request, dk_plan *out, dk_error *err)
{
    pthread_mutex_lock(&engine->planner->lock);
    dk_status status = plan(engine, request, out, err);
    pthread_mutex_unlock(&engine->planner->lock);
    return status;
}
