/* Running the stages of a job: timing, events, outputs. */
#include "pipeline/job.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "pipeline/stage.h"

int64_t dk_job_latent_count(const dk_job *job)
{
    return job->latent_channels * job->latent_frames * job->latent_height * job->latent_width;
}

static void emit(dk_job *job, const dk_event *event)
{
    if (job->events != NULL) {
        job->events(job->event_context, event);
    }
}

void dk_job_warn(dk_job *job, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    emit(job, &(dk_event){.kind = DK_EVENT_WARNING, .output = job->output, .message = text});
}

void dk_job_release(dk_job *job)
{
    dk_free(job->prompt.values);
    dk_free(job->negative.values);
    dk_free(job->given_latents);
    dk_free(job->latent);
    dk_free(job->frames);
    dk_sampler_destroy(&job->sampler);
}

static dk_status run_stage(dk_job *job, const dk_stage *stage, dk_error *err)
{
    dk_result *result = job->result;
    dk_event event = {
        .kind = DK_EVENT_STAGE_BEGIN, .stage = stage->name, .output = job->output};
    emit(job, &event);
    double start = dk_now_ms();
    DK_TRY(dk_nn_check(job->nn, err));
    DK_TRY(stage->run(job, err));
    event.kind = DK_EVENT_STAGE_END;
    event.ms = dk_now_ms() - start;
    emit(job, &event);
    size_t count = (size_t)result->timing_count + 1;
    result->timings = dk_realloc(result->timings, count * sizeof *result->timings);
    result->timings[result->timing_count++] =
        (dk_timing){.stage = stage->name, .output = job->output, .ms = event.ms};
    return DK_OK;
}

dk_status dk_job_run(dk_job *job, dk_error *err)
{
    const dk_stage *const *stages = dk_recipe_wan;
    for (int i = 0; stages[i] != NULL; i++) {
        if (!stages[i]->per_output) {
            DK_TRY(run_stage(job, stages[i], err));
        }
    }
    for (job->output = 0; job->output < job->request.num_outputs_per_prompt; job->output++) {
        for (int i = 0; stages[i] != NULL; i++) {
            if (stages[i]->per_output) {
                DK_TRY(run_stage(job, stages[i], err));
            }
        }
    }
    return DK_OK;
}
