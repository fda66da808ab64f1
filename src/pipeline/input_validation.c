/* Stage: the request against what the model can do. Nothing is computed before this passed. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "nn/parallel.h"
#include "pipeline/pipeline.h"
#include "pipeline/request_parameters.h"
#include "pipeline/stage.h"
#include "weights/safetensors.h"

/* Ranges come from the parameter table; this is what only the model can tell. */
static dk_status check_side(const char *name, int value, int unit, dk_error *err)
{
    if (value % unit == 0) {
        return DK_OK;
    }
    int below = value / unit * unit, above = below + unit;
    if (below == 0 || above > dk_parameter_find(&dk_request_parameters, name)->max) {
        return dk_fail(err, DK_INVALID,
                       "%s is %d, but this model needs a multiple of %d: the nearest is %d",
                       name, value, unit, below == 0 ? above : below);
    }
    return dk_fail(err, DK_INVALID,
                   "%s is %d, but this model needs a multiple of %d: the nearest are %d and %d",
                   name, value, unit, below, above);
}

/* Every rank that shares a sequence gets a part of it. */
static dk_status check_sequence(const dk_job *job, const dk_wan_dit_config *dit, dk_error *err)
{
    const dk_nn_parallel *ranks = job->nn != NULL ? job->nn->parallel : NULL;
    int64_t tokens = job->latent_frames / dit->patch[0] * (job->latent_height / dit->patch[1]) *
                     (job->latent_width / dit->patch[2]);
    int sp = ranks != NULL ? dk_layout_sp(&ranks->groups->layout) : 1;
    if (tokens < sp) {
        return dk_fail(err, DK_INVALID,
                       "%d x %d pixels and %d frames are %lld tokens, fewer than the %d ranks "
                       "that share a sequence (sp_degree), accepted are larger outputs",
                       job->request.width, job->request.height, job->request.num_frames,
                       (long long)tokens, sp);
    }
    return DK_OK;
}

static dk_status check_sizes(dk_job *job, dk_error *err)
{
    const dk_wan_vae_config *vae = dk_wan_vae_get_config(job->pipeline->vae);
    const dk_wan_dit_config *dit = dk_wan_dit_get_config(job->pipeline->transformer);
    dk_request *r = &job->request;
    DK_TRY(check_side("width", r->width, vae->spatial_factor * (int)dit->patch[2], err));
    DK_TRY(check_side("height", r->height, vae->spatial_factor * (int)dit->patch[1], err));
    DK_TRY(check_side("vae_tile_size", r->vae_tile_size, DK_TILE_QUARTERS * vae->spatial_factor,
                      err));
    int factor = vae->temporal_factor;
    if (r->num_frames % factor != 1 % factor) {
        int rounded = r->num_frames / factor * factor + 1;
        dk_job_warn(job, "num_frames %d becomes %d: this model makes 1 + a multiple of %d",
                    r->num_frames, rounded, factor);
        r->num_frames = rounded;
    }
    job->latent_channels = vae->z_dim;
    job->latent_frames = (r->num_frames - 1) / factor + 1;
    job->latent_height = r->height / vae->spatial_factor;
    job->latent_width = r->width / vae->spatial_factor;
    if (job->latent_frames % dit->patch[0] != 0) {
        return dk_fail(err, DK_INVALID,
                       "num_frames is %d: its %lld latent frames are no multiple of %lld",
                       r->num_frames, (long long)job->latent_frames, (long long)dit->patch[0]);
    }
    DK_TRY(check_sequence(job, dit, err));
    const int64_t patches[3] = {job->latent_frames / dit->patch[0],
                                job->latent_height / dit->patch[1],
                                job->latent_width / dit->patch[2]};
    for (int axis = 0; axis < 3; axis++) {
        if (patches[axis] > dit->rope_positions) {
            return dk_fail(err, DK_INVALID,
                           "%d x %d pixels and %d frames: %lld patches along one axis, this "
                           "model takes up to %lld",
                           r->width, r->height, r->num_frames, (long long)patches[axis],
                           (long long)dit->rope_positions);
        }
    }
    return DK_OK;
}

/* One F32 tensor [n][channels][frames][height][width], or without n, in the file. */
static dk_status load_latents(dk_job *job, dk_error *err)
{
    const char *path = job->request.initial_latents;
    const int64_t shape[5] = {1, job->latent_channels, job->latent_frames, job->latent_height,
                              job->latent_width};
    dk_safetensors *file = NULL;
    DK_TRY(dk_safetensors_open(&file, path, err));
    dk_status status = DK_OK;
    const dk_weight *weight = dk_safetensors_find(file, "latents_init");
    if (weight == NULL && dk_safetensors_count(file) == 1) {
        weight = dk_safetensors_at(file, 0);
    }
    char expected[DK_SHAPE_TEXT_BYTES], is[DK_SHAPE_TEXT_BYTES];
    dk_shape_text(expected, 5, shape);
    if (weight == NULL) {
        status = dk_fail(err, DK_FORMAT,
                         "%s: expected a tensor 'latents_init' or one tensor alone", path);
        goto done;
    }
    const dk_tensor *tensor = &weight->tensor;
    int lead = tensor->rank - 4;
    if (tensor->dtype != DK_F32 || lead < 0 || lead > 1 ||
        memcmp(tensor->shape + lead, shape + 1, 4 * sizeof *shape) != 0 ||
        (lead == 1 && tensor->shape[0] < 1)) {
        status = dk_fail(err, DK_FORMAT, "%s: tensor '%s' is %s %s, expected F32 %s", path,
                         weight->name, dk_dtype_name(tensor->dtype),
                         dk_shape_text(is, tensor->rank, tensor->shape), expected);
        goto done;
    }
    void *copy;
    DK_TRY_DONE(dk_try_alloc(&copy, dk_tensor_bytes(tensor), "initial latents", err));
    memcpy(copy, tensor->data, dk_tensor_bytes(tensor));
    job->given_latents = copy;
    job->given_count = lead == 1 ? tensor->shape[0] : 1;
    int first = job->request.initial_latents_first;
    if (job->given_count < (int64_t)first + job->request.num_outputs_per_prompt) {
        status =
            dk_fail(err, DK_INVALID, "%s: %lld latents for %d outputs from latent %d on", path,
                    (long long)job->given_count, job->request.num_outputs_per_prompt, first);
    }
    for (int64_t i = 0; i < dk_tensor_count(tensor) && status == DK_OK; i++) {
        if (!isfinite(job->given_latents[i])) {
            status = dk_fail(err, DK_FORMAT, "%s: value %lld of tensor '%s' is not finite",
                             path, (long long)i, weight->name);
        }
    }
done:
    dk_safetensors_close(&file);
    return status;
}

static dk_status allocate_result(dk_job *job, dk_error *err)
{
    const dk_request *r = &job->request;
    dk_result *result = job->result;
    size_t frame = (size_t)r->width * (size_t)r->height * 3, bytes = 0;
    void *rgb;
    if (!dk_mul_size(&bytes, frame,
                     (size_t)r->num_frames * (size_t)r->num_outputs_per_prompt)) {
        return dk_fail(err, DK_INVALID,
                       "%d outputs of %d frames of %d x %d pixels are too many",
                       r->num_outputs_per_prompt, r->num_frames, r->width, r->height);
    }
    DK_TRY(dk_try_alloc(&rgb, bytes, "frames", err));
    memset(rgb, 0, bytes);
    result->rgb = rgb;
    result->outputs = r->num_outputs_per_prompt;
    result->frames = r->num_frames;
    result->height = r->height;
    result->width = r->width;
    result->fps = r->fps;
    result->seeds = dk_alloc((size_t)result->outputs * sizeof *result->seeds);
    for (int i = 0; i < result->outputs; i++) {
        result->seeds[i] = r->seed + (uint64_t)i;
    }
    return DK_OK;
}

static dk_status check_present(const char *name, const char *text, dk_error *err)
{
    return text != NULL ? DK_OK
                        : dk_fail(err, DK_INVALID, "%s is missing, accepted is a text", name);
}

dk_status dk_job_check(dk_job *job, dk_error *err)
{
    const dk_request *r = &job->request;
    DK_TRY(check_present("prompt", r->prompt, err));
    DK_TRY(check_present("negative_prompt", r->negative_prompt, err));
    DK_TRY(check_present("noise", r->noise, err));
    DK_TRY(dk_parameter_check_all(&dk_request_parameters, r, err));
    if (isnan(r->guidance_scale) || isnan(r->fps) || isnan(r->strength)) {
        return dk_fail(err, DK_INVALID, "%s is not a number",
                       isnan(r->fps)              ? "fps"
                       : isnan(r->guidance_scale) ? "guidance_scale"
                                                  : "strength");
    }
    if (!dk_noise_from_name(&job->noise, r->noise)) {
        return dk_fail(err, DK_INTERNAL, "noise '%s' is in the table, but nothing makes it",
                       r->noise);
    }
    job->guided = r->guidance_scale > 1.0;
    DK_TRY(check_sizes(job, err));
    if (job->follows) { /* the leader reads the files */
        return DK_OK;
    }
    if (r->image_path != NULL || r->mask_path != NULL) {
        DK_TRY(dk_edit_load(job, err));
    }
    return r->initial_latents != NULL ? load_latents(job, err) : DK_OK;
}

static dk_status run(dk_job *job, dk_error *err)
{
    DK_TRY(dk_job_check(job, err));
    return allocate_result(job, err);
}

const dk_stage dk_stage_input_validation = {
    .name = "input validation", .run = run, .follow = dk_job_check};
