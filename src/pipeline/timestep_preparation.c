/* Stage: the sampler with its schedule of timesteps and sigmas, and how far a checkpoint is. */
#include <math.h>

#include "pipeline/pipeline.h"
#include "pipeline/stage.h"

static dk_status run(dk_job *job, dk_error *err)
{
    const dk_request *r = &job->request;
    const dk_sampler_options options = {.name = r->sampler,
                                        .flow_shift = r->flow_shift,
                                        .steps = r->num_inference_steps,
                                        .mu = NAN};
    DK_TRY(dk_sampler_create(&job->sampler, job->pipeline->scheduler_config, &options,
                             job->pipeline->scheduler_where, err));
    int steps = dk_sampler_steps(job->sampler);
    dk_tensor sigmas =
        DK_TENSOR((void *)dk_sampler_sigmas(job->sampler), DK_F32, (int64_t)steps + 1);
    dk_tensor timesteps =
        DK_TENSOR((void *)dk_sampler_timesteps(job->sampler), DK_F32, (int64_t)steps);
    dk_dump_add(job->dump, "sigmas", &sigmas);
    dk_dump_add(job->dump, "timesteps", &timesteps);
    /* A dump holds every step: it needs a whole run. */
    bool keeps = job->checkpoint.path != NULL && job->dump == NULL;
    return keeps ? dk_checkpoint_open(&job->saved, job, err) : DK_OK;
}

/* The schedule tells how many steps there are. */
static dk_status plan(dk_job *job, dk_planning *planning, dk_error *err)
{
    (void)planning;
    return run(job, err);
}

const dk_stage dk_stage_timestep_preparation = {
    .name = "timestep preparation", .run = run, .follow = run, .plan = plan};
