/* Starting from a picture, and keeping what a mask keeps. The start is that of diffusers'
   WanVideoToVideoPipeline; the mask works as in its inpainting pipelines: the latent is blended
   after every step, the pixels at the end. */
#include "pipeline/edit.h"

#include <string.h>

#include "base/alloc.h"
#include "media/image.h"
#include "media/resize.h"
#include "pipeline/pipeline.h"

static dk_status check(dk_job *job, dk_error *err)
{
    const dk_request *r = &job->request;
    int steps = r->num_inference_steps;
    if (r->image_path == NULL) {
        return dk_fail(err, DK_INVALID,
                       "mask_path is set, but image_path is not: a mask says what of a picture "
                       "may change");
    }
    int kept = (int)(steps * r->strength); /* as int() of the reference */
    if (!(kept >= 1)) {
        return dk_fail(err, DK_INVALID,
                       "strength is %g: of %d steps none would be left, accepted is %.3g to 1",
                       r->strength, steps, 1.0 / steps);
    }
    job->edit.begin_step = steps - kept;
    if (dk_weights_find(job->pipeline->encoder->weights, "encoder.conv_in.weight") == NULL) {
        return dk_fail(
            err, DK_UNSUPPORTED,
            "image_path: this model's VAE has no encoder (%s), accepted are requests "
            "without a picture",
            job->pipeline->encoder->where);
    }
    return DK_OK;
}

static dk_status new_bytes(uint8_t **out, int64_t count, const char *what, dk_error *err)
{
    void *memory;
    DK_TRY(dk_try_alloc(&memory, (size_t)count, what, err));
    *out = memory;
    return DK_OK;
}

static dk_status load_picture(dk_job *job, dk_error *err)
{
    const dk_request *r = &job->request;
    dk_image image;
    DK_TRY(dk_media_read_image(&image, r->image_path, NULL, err));
    const dk_samples samples = {image.height, image.width, 3, image.rgb};
    dk_status status =
        new_bytes(&job->edit.picture, (int64_t)r->height * r->width * 3, "a picture", err);
    if (status == DK_OK) {
        status =
            dk_resize(job->edit.picture, r->height, r->width, &samples, DK_RESIZE_CUBIC, err);
    }
    dk_image_release(&image);
    return status;
}

/* Brightness in place: a third of the bytes. Gray pictures keep their values. */
static void make_gray(dk_image *image)
{
    int64_t pixels = (int64_t)image->height * image->width;
    for (int64_t i = 0; i < pixels; i++) {
        const uint8_t *p = image->rgb + 3 * i;
        image->rgb[i] = (uint8_t)((299 * p[0] + 587 * p[1] + 114 * p[2] + 500) / 1000);
    }
}

/* The mask at the size of the output and at that of the latent. */
static dk_status scale_mask(dk_job *job, const dk_samples *gray, dk_error *err)
{
    dk_edit *edit = &job->edit;
    int height = (int)job->latent_height, width = (int)job->latent_width;
    void *memory;
    uint8_t *small = NULL;
    DK_TRY(new_bytes(&edit->mask, (int64_t)job->request.height * job->request.width, "a mask",
                     err));
    DK_TRY(dk_resize(edit->mask, job->request.height, job->request.width, gray, DK_RESIZE_AREA,
                     err));
    DK_TRY(dk_try_alloc(&memory, (size_t)(height * width) * sizeof(float), "a mask", err));
    edit->latent_mask = memory;
    DK_TRY(new_bytes(&small, (int64_t)height * width, "a mask", err));
    dk_status status = dk_resize(small, height, width, gray, DK_RESIZE_AREA, err);
    for (int i = 0; i < height * width && status == DK_OK; i++) {
        edit->latent_mask[i] = (float)small[i] / 255.0f;
    }
    dk_free(small);
    return status;
}

static dk_status load_mask(dk_job *job, dk_error *err)
{
    dk_image image;
    DK_TRY(dk_media_read_image(&image, job->request.mask_path, NULL, err));
    make_gray(&image);
    const dk_samples gray = {image.height, image.width, 1, image.rgb};
    dk_status status = scale_mask(job, &gray, err);
    dk_image_release(&image);
    return status;
}

dk_status dk_edit_load(dk_job *job, dk_error *err)
{
    size_t bytes = (size_t)dk_job_latent_count(job) * sizeof(float);
    void *original, *noise;
    DK_TRY(check(job, err));
    DK_TRY(load_picture(job, err));
    if (job->request.mask_path != NULL) {
        DK_TRY(load_mask(job, err));
    }
    DK_TRY(dk_try_alloc(&original, bytes, "a picture's latent", err));
    job->edit.original = original;
    DK_TRY(dk_try_alloc(&noise, bytes, "noise", err));
    job->edit.noise = noise;
    return DK_OK;
}

void dk_edit_release(dk_edit *edit)
{
    dk_free(edit->picture);
    dk_free(edit->mask);
    dk_free(edit->latent_mask);
    dk_free(edit->original);
    dk_free(edit->noise);
    *edit = (dk_edit){0};
}

void dk_edit_begin(dk_job *job)
{
    const dk_edit *edit = &job->edit;
    int64_t count = dk_job_latent_count(job);
    float sigma = dk_sampler_sigmas(job->sampler)[edit->begin_step], rest = 1.0f - sigma;
    for (int64_t i = 0; i < count; i++) {
        job->latent[i] = rest * edit->original[i] + sigma * edit->noise[i];
    }
}

void dk_edit_keep(dk_job *job, int step, const dk_tensor *latent)
{
    const dk_edit *edit = &job->edit;
    dk_device *device = job->nn->device;
    if (edit->mask == NULL) {
        return;
    }
    int64_t count = dk_job_latent_count(job), plane = job->latent_height * job->latent_width;
    float sigma = dk_sampler_sigmas(job->sampler)[step], rest = 1.0f - sigma;
    dk_device_read(device, job->latent, latent->data, dk_tensor_bytes(latent));
    for (int64_t i = 0; i < count; i++) {
        float mask = edit->latent_mask[i % plane];
        float kept = rest * edit->original[i] + sigma * edit->noise[i];
        job->latent[i] = mask * job->latent[i] + (1.0f - mask) * kept;
    }
    dk_device_write(device, latent->data, job->latent, dk_tensor_bytes(latent));
}

void dk_edit_blend(const dk_job *job, uint8_t *rgb, int64_t frames)
{
    const dk_edit *edit = &job->edit;
    int64_t pixels = (int64_t)job->request.height * job->request.width;
    if (edit->mask == NULL) {
        return;
    }
    for (int64_t i = 0; i < frames * pixels * 3; i++) {
        int mask = edit->mask[i / 3 % pixels];
        int mixed = mask * rgb[i] + (255 - mask) * edit->picture[i % (3 * pixels)];
        rgb[i] = (uint8_t)((mixed + 127) / 255);
    }
}
