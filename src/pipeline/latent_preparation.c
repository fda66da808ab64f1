/* Stage: the first latent of an output: drawn from its seed, given, or a checkpoint's. */
#include <string.h>

#include "base/alloc.h"
#include "pipeline/pipeline.h"
#include "pipeline/stage.h"

static dk_status run(dk_job *job, dk_error *err)
{
    int64_t count = dk_job_latent_count(job);
    if (job->latent == NULL) {
        void *memory;
        DK_TRY(dk_try_alloc(&memory, (size_t)count * sizeof(float), "latent", err));
        job->latent = memory;
    }
    job->first_step = job->saved != NULL ? dk_checkpoint_begin(job->saved, job) : 0;
    job->resumes = job->first_step > 0 && job->first_step < dk_sampler_steps(job->sampler);
    if (job->first_step > 0) {
        return DK_OK;
    }
    if (job->given_latents != NULL) {
        memcpy(job->latent,
               job->given_latents + (job->request.initial_latents_first + job->output) * count,
               (size_t)count * sizeof(float));
    } else {
        dk_generator generator;
        dk_generator_init(&generator, job->noise, job->result->seeds[job->output]);
        dk_generator_randn(&generator, job->latent, count);
    }
    dk_tensor latent = DK_TENSOR(job->latent, DK_F32, 1, job->latent_channels,
                                 job->latent_frames, job->latent_height, job->latent_width);
    dk_dump_add(job->dump, "latents_init", &latent);
    return DK_OK;
}

const dk_stage dk_stage_latent_preparation = {
    .name = "latent preparation", .per_output = true, .run = run};
