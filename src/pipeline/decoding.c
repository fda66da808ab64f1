/* Stage: the last latent becomes frames. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "nn/parallel.h"
#include "pipeline/pipeline.h"
#include "pipeline/stage.h"

/* A sample value in [-1, 1] as a share of white; what lies outside is cut off. */
static float unit(float sample)
{
    float value = sample * 0.5f + 0.5f;
    return value < 0.0f ? 0.0f : value > 1.0f ? 1.0f : value; /* NaN falls through */
}

/* Samples of frames [first_frame, first_frame + count), in host memory and changed there,
   become pixels. */
static dk_status take_frames(dk_job *job, int64_t first_frame, int64_t count, float *values,
                             dk_error *err)
{
    const dk_result *result = job->result;
    int64_t frame = (int64_t)result->height * result->width * 3;
    uint8_t *rgb = result->rgb + ((int64_t)job->output * result->frames + first_frame) * frame;
    dk_status status = DK_OK;
    for (int64_t i = 0; i < count * frame && status == DK_OK; i++) {
        values[i] = unit(values[i]);
        if (isnan(values[i])) {
            status = dk_fail(err, DK_INTERNAL,
                             "frame %lld is not a number at pixel %lld: the weights or the "
                             "settings overflow the arithmetic",
                             (long long)(first_frame + i / frame), (long long)(i % frame / 3));
        }
        rgb[i] = (uint8_t)lrintf(values[i] * 255.0f);
    }
    dk_edit_blend(job, rgb, count);
    if (job->frames != NULL) {
        memcpy(job->frames + first_frame * frame, values,
               (size_t)(count * frame) * sizeof(float));
    }
    return status;
}

static dk_status emit(void *context, int64_t first_frame, int64_t count,
                      const dk_tensor *sample, dk_error *err)
{
    dk_job *job = context;
    void *values;
    DK_TRY(dk_try_alloc(&values, dk_tensor_bytes(sample), "a frame", err));
    dk_device_read(job->nn->device, values, sample->data, dk_tensor_bytes(sample));
    dk_status status = dk_device_sync(job->nn->device, err);
    if (status == DK_OK) {
        status = take_frames(job, first_frame, count, values, err);
    }
    dk_free(values);
    return status;
}

/* Of a clip that was put together on the host. */
static dk_status emit_clip(void *context, int64_t first_frame, int64_t count,
                           const dk_tensor *sample, dk_error *err)
{
    return take_frames(context, first_frame, count, sample->data, err);
}

/* z * std + mean, per channel. */
static void denormalise(const dk_job *job)
{
    const dk_wan_vae_config *vae = dk_wan_vae_get_config(job->pipeline->vae);
    int64_t pixels = dk_job_latent_count(job) / job->latent_channels;
    for (int64_t c = 0; c < job->latent_channels; c++) {
        /* diffusers divides by 1 / std in f32. */
        float scale = 1.0f / (float)vae->latents_std[c], mean = (float)vae->latents_mean[c];
        float *plane = job->latent + c * pixels;
        for (int64_t i = 0; i < pixels; i++) {
            plane[i] = plane[i] / scale + mean;
        }
    }
    dk_tensor latent = DK_TENSOR(job->latent, DK_F32, 1, job->latent_channels,
                                 job->latent_frames, job->latent_height, job->latent_width);
    dk_dump_add(job->dump, "vae_in", &latent);
}

/* Tiles overlap by a quarter and are blended there. The dry run measures one. */
static dk_status decode_tiled(dk_job *job, dk_error *err)
{
    dk_nn *nn = job->nn;
    const dk_wan_vae *vae = job->pipeline->vae;
    int size = job->request.vae_tile_size, stride = size / DK_TILE_QUARTERS * 3;
    const dk_wan_vae_tiling tiling = {size, size, stride, stride};
    int64_t side = size / dk_wan_vae_get_config(vae)->spatial_factor;
    int64_t height = job->latent_height, width = job->latent_width;
    dk_tensor latent = DK_TENSOR(job->latent, DK_F32, job->latent_channels,
                                 job->latent_frames * height * width);
    if (nn->device->dry) {
        return dk_wan_vae_decode(nn, vae, &latent, job->latent_frames,
                                 side < height ? side : height, side < width ? side : width,
                                 emit, job, err);
    }
    return dk_wan_vae_decode_tiled(nn, vae, &latent, job->latent_frames, height, width, &tiling,
                                   emit_clip, job, err);
}

static bool is_tiled(const dk_request *r)
{
    return r->vae_tile_size > 0 &&
           (r->vae_tile_size < r->width || r->vae_tile_size < r->height);
}

static dk_status decode(dk_job *job, dk_error *err)
{
    dk_nn *nn = job->nn;
    if (is_tiled(&job->request)) {
        return decode_tiled(job, err);
    }
    dk_tensor latent = dk_nn_keep(nn, DK_F32, job->latent_channels,
                                  job->latent_frames * job->latent_height * job->latent_width);
    dk_device_write(nn->device, latent.data, job->latent, dk_tensor_bytes(&latent));
    return dk_wan_vae_decode(nn, job->pipeline->vae, &latent, job->latent_frames,
                             job->latent_height, job->latent_width, emit, job, err);
}

/* The latent that ranks end the steps with is the leader's, whatever their arithmetic. */
static dk_status share_latent(dk_job *job, dk_error *err)
{
    dk_nn *nn = job->nn;
    if (nn->parallel == NULL) {
        return DK_OK;
    }
    dk_nn_share(nn, job->latent, (size_t)dk_job_latent_count(job) * sizeof(float));
    return dk_nn_sync(nn, err);
}

static dk_status make_room(dk_job *job, dk_tensor *frames, dk_error *err)
{
    const dk_result *result = job->result;
    *frames =
        DK_TENSOR(job->frames, DK_F32, 1, result->frames, result->height, result->width, 3);
    if (job->dump != NULL && job->frames == NULL) {
        DK_TRY(dk_try_alloc(&frames->data, dk_tensor_bytes(frames), "dumped frames", err));
        job->frames = frames->data;
    }
    return DK_OK;
}

/* Of several ranks the leader alone dumps. */
static dk_status run(dk_job *job, dk_error *err)
{
    dk_tensor frames;
    DK_TRY(share_latent(job, err));
    denormalise(job);
    dk_nn_dry_begin(job->nn);
    dk_status status = decode(job, err);
    dk_status ended = dk_nn_dry_end(job->nn, status == DK_OK ? err : NULL);
    DK_TRY(dk_nn_agree_status(job->nn, status != DK_OK ? status : ended, err));
    DK_TRY(dk_nn_agree_status(job->nn, make_room(job, &frames, err), err));
    DK_TRY(decode(job, err));
    dk_dump_add(job->dump, "frames", &frames);
    return DK_OK;
}

/* Tiles along one axis, each `stride` behind the one before. */
static double tiles_of(int size, int side)
{
    int stride = size / DK_TILE_QUARTERS * 3;
    return size > 0 && size < side ? (side + stride - 1) / stride : 1;
}

static dk_status plan(dk_job *job, dk_planning *planning, dk_error *err)
{
    const dk_request *r = &job->request;
    const dk_wan_vae_config *vae = dk_wan_vae_get_config(job->pipeline->vae);
    double before = dk_device_flops(job->nn->device);
    DK_TRY(decode(job, err));
    double tiles = tiles_of(r->vae_tile_size, r->width) * tiles_of(r->vae_tile_size, r->height);
    planning->flops[DK_RATE_DECODING] =
        r->num_outputs_per_prompt * tiles * (dk_device_flops(job->nn->device) - before);
    /* Frames in f32: those of one latent frame, or all where tiles are put together. */
    int frames = tiles > 1 ? 2 * r->num_frames : vae->temporal_factor;
    planning->host_bytes +=
        (uint64_t)frames * (uint64_t)r->width * (uint64_t)r->height * 3 * sizeof(float);
    return DK_OK;
}

/* Tiles are the leader's. */
static bool is_shared(const dk_job *job)
{
    return !is_tiled(&job->request);
}

const dk_stage dk_stage_decoding = {.name = "decoding",
                                    .per_output = true,
                                    .run = run,
                                    .is_shared = is_shared,
                                    .plan = plan,
                                    .rate = DK_RATE_DECODING,
                                    .component = DK_COMPONENT_VAE};
