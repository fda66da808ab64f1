/* Stage: the picture that a request starts from becomes a latent, repeated over the frames. */
#include "base/alloc.h"
#include "pipeline/pipeline.h"
#include "pipeline/stage.h"

static dk_status open_encoder(const dk_job *job, dk_error *err)
{
    dk_image_encoder *encoder = job->pipeline->encoder;
    if (encoder->vae != NULL) {
        return DK_OK;
    }
    dk_weights_attach(encoder->weights, job->nn->device, DK_COMPONENT_IMAGE_ENCODER);
    return dk_wan_vae_create(&encoder->vae, dk_wan_vae_get_config(job->pipeline->vae),
                             encoder->weights, job->nn->device, DK_WAN_VAE_ENCODER,
                             encoder->where, err);
}

/* The picture in [-1, 1], plane by plane, into every frame of the video. */
static dk_status write_video(dk_job *job, const dk_tensor *video, dk_error *err)
{
    dk_device *device = job->nn->device;
    int64_t pixels = (int64_t)job->request.height * job->request.width;
    int64_t frames = job->request.num_frames;
    size_t bytes = (size_t)pixels * sizeof(float);
    void *memory;
    if (device->dry) {
        return DK_OK;
    }
    DK_TRY(dk_try_alloc(&memory, bytes, "a picture", err));
    float *plane = memory;
    for (int64_t c = 0; c < 3; c++) {
        for (int64_t i = 0; i < pixels; i++) {
            plane[i] = 2.0f * ((float)job->edit.picture[3 * i + c] / 255.0f) - 1.0f;
        }
        for (int64_t t = 0; t < frames; t++) {
            dk_device_write(device, (float *)video->data + (c * frames + t) * pixels, plane,
                            bytes);
        }
    }
    dk_free(memory);
    return DK_OK;
}

/* The moments, in the keep stack. */
static dk_status encode(dk_job *job, const dk_wan_vae *vae, dk_tensor *moments, dk_error *err)
{
    const dk_request *r = &job->request;
    dk_nn *nn = job->nn;
    int64_t channels = job->latent_channels;
    dk_tensor video = dk_nn_keep(nn, DK_F32, 3, (int64_t)r->num_frames * r->height * r->width);
    *moments = dk_nn_keep(nn, DK_F32, 2 * channels, dk_job_latent_count(job) / channels);
    DK_TRY(write_video(job, &video, err));
    return dk_wan_vae_encode(nn, vae, moments, &video, r->num_frames, r->height, r->width, err);
}

/* (mean - latents_mean) / latents_std, per channel, in place. */
static void normalise(dk_job *job)
{
    const dk_wan_vae_config *vae = dk_wan_vae_get_config(job->pipeline->vae);
    int64_t pixels = dk_job_latent_count(job) / job->latent_channels;
    for (int64_t c = 0; c < job->latent_channels; c++) {
        /* diffusers multiplies by 1 / std in f32. */
        float scale = 1.0f / (float)vae->latents_std[c], mean = (float)vae->latents_mean[c];
        float *plane = job->edit.original + c * pixels;
        for (int64_t i = 0; i < pixels; i++) {
            plane[i] = (plane[i] - mean) * scale;
        }
    }
    dk_tensor latent = DK_TENSOR(job->edit.original, DK_F32, 1, job->latent_channels,
                                 job->latent_frames, job->latent_height, job->latent_width);
    dk_dump_add(job->dump, "image_latents", &latent);
}

static dk_status run(dk_job *job, dk_error *err)
{
    dk_nn *nn = job->nn;
    dk_tensor moments;
    DK_TRY(open_encoder(job, err));
    const dk_wan_vae *vae = job->pipeline->encoder->vae;
    dk_nn_dry_begin(nn);
    dk_status status = encode(job, vae, &moments, err);
    dk_status planned = dk_nn_dry_end(nn, status == DK_OK ? err : NULL);
    if (status != DK_OK || planned != DK_OK) {
        return status != DK_OK ? status : planned;
    }
    DK_TRY(encode(job, vae, &moments, err));
    /* The first half of the rows is the mean. */
    dk_device_read(nn->device, job->edit.original, moments.data, dk_tensor_bytes(&moments) / 2);
    DK_TRY(dk_device_sync(nn->device, err));
    normalise(job);
    return DK_OK;
}

static dk_status plan(dk_job *job, dk_planning *planning, dk_error *err)
{
    dk_tensor moments;
    double before = dk_device_flops(job->nn->device);
    DK_TRY(encode(job, planning->encoder, &moments, err));
    planning->flops[DK_RATE_IMAGE] = dk_device_flops(job->nn->device) - before;
    planning->host_bytes += 2 * (uint64_t)dk_job_latent_count(job) * sizeof(float);
    return DK_OK;
}

static bool applies(const dk_job *job)
{
    return job->request.image_path != NULL;
}

const dk_stage dk_stage_image_encoding = {.name = "image encoding",
                                          .applies = applies,
                                          .run = run,
                                          .plan = plan,
                                          .rate = DK_RATE_IMAGE,
                                          .component = DK_COMPONENT_IMAGE_ENCODER};
