/* Stage: the first latent of an output: noise that is drawn from its seed or given, alone or
   over a picture's latent; or a checkpoint's. */
#include <string.h>

#include "base/alloc.h"
#include "pipeline/pipeline.h"
#include "pipeline/stage.h"

static void make_noise(const dk_job *job, float *noise)
{
    int64_t count = dk_job_latent_count(job);
    if (job->given_latents != NULL) {
        memcpy(noise,
               job->given_latents + (job->request.initial_latents_first + job->output) * count,
               (size_t)count * sizeof(float));
    } else {
        dk_generator generator;
        dk_generator_init(&generator, job->noise, job->result->seeds[job->output]);
        dk_generator_randn(&generator, noise, count);
    }
}

static void dump(const dk_job *job, const char *name, float *values)
{
    dk_tensor latent = DK_TENSOR(values, DK_F32, 1, job->latent_channels, job->latent_frames,
                                 job->latent_height, job->latent_width);
    dk_dump_add(job->dump, name, &latent);
}

static dk_status make_room(dk_job *job, dk_error *err)
{
    if (job->latent == NULL) {
        void *memory;
        DK_TRY(dk_try_alloc(&memory, (size_t)dk_job_latent_count(job) * sizeof(float), "latent",
                            err));
        job->latent = memory;
    }
    return DK_OK;
}

static dk_status run(dk_job *job, dk_error *err)
{
    int steps = dk_sampler_steps(job->sampler), begin = job->edit.begin_step;
    bool edits = job->edit.picture != NULL;
    DK_TRY(make_room(job, err));
    int made = job->saved != NULL ? dk_checkpoint_begin(job->saved, job) : 0;
    job->first_step = made > begin ? made : begin;
    job->resumes = made > begin && made < steps;
    if (edits) { /* masks need the noise to the end */
        make_noise(job, job->edit.noise);
        dump(job, "noise", job->edit.noise);
    }
    if (made > begin) {
        return DK_OK;
    }
    if (edits) {
        dk_edit_begin(job);
    } else {
        make_noise(job, job->latent);
    }
    dump(job, "latents_init", job->latent);
    return DK_OK;
}

const dk_stage dk_stage_latent_preparation = {
    .name = "latent preparation", .per_output = true, .run = run, .follow = make_room};
