/* Running the stages of jobs: timing, events, outputs. */
#include "pipeline/job.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/trace.h"
#include "nn/parallel.h"
#include "pipeline/stage.h"

int64_t dk_job_latent_count(const dk_job *job)
{
    return job->latent_channels * job->latent_frames * job->latent_height * job->latent_width;
}

void dk_job_emit(dk_job *job, const dk_event *event)
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
    dk_job_emit(job,
                &(dk_event){.kind = DK_EVENT_WARNING, .output = job->output, .message = text});
}

void dk_job_warn_spoiled(dk_job *job, const char *where, dk_component component, int block)
{
    static const struct {
        const char *part, *model;
    } names[DK_COMPONENT_COUNT] = {
        [DK_COMPONENT_TEXT_ENCODER] = {"block", "the text encoder"},
        [DK_COMPONENT_IMAGE_ENCODER] = {"stage", "the VAE's encoder"},
        [DK_COMPONENT_TRANSFORMER] = {"block", "the transformer"},
        [DK_COMPONENT_VAE] = {"stage", "the VAE's decoder"},
    };
    static const char format[] =
        "%s: %s %d of %s was not finite: it is computed again, and from "
        "now on, by slower kernels in f32";
    const char *part = names[component].part, *model = names[component].model;
    dk_job_warn(job, format, where, part, block, model);
    dk_log_warn(job->log, format, where, part, block, model);
}

void dk_job_release(dk_job *job)
{
    dk_free(job->prompt.values);
    dk_free(job->negative.values);
    dk_free(job->given_latents);
    dk_free(job->latent);
    dk_edit_release(&job->edit);
    dk_preview_release(&job->preview);
    dk_free(job->frames);
    dk_sampler_destroy(&job->sampler);
    dk_checkpoint_close(&job->saved);
}

/* Traces tell a stage once, also where several jobs go through it together. */
static void trace_stage(const dk_job *job, const dk_stage *stage, int64_t began_ns)
{
    dk_trace_add(job->nn->device->trace, &(dk_trace_span){.lane = DK_TRACE_STAGES,
                                                          .name = stage->name,
                                                          .begin_ns = began_ns,
                                                          .end_ns = dk_now_ns()});
}

static void begin_stage(dk_job *job, const dk_stage *stage)
{
    dk_job_emit(
        job,
        &(dk_event){.kind = DK_EVENT_STAGE_BEGIN, .stage = stage->name, .output = job->output});
}

static void end_stage(dk_job *job, const dk_stage *stage, double ms)
{
    dk_result *result = job->result;
    if (job->status != DK_OK) {
        return;
    }
    dk_job_emit(job, &(dk_event){.kind = DK_EVENT_STAGE_END,
                                 .stage = stage->name,
                                 .output = job->output,
                                 .ms = ms});
    size_t count = (size_t)result->timing_count + 1;
    result->timings = dk_realloc(result->timings, count * sizeof *result->timings);
    result->timings[result->timing_count++] =
        (dk_timing){.stage = stage->name, .output = job->output, .ms = ms};
}

static void note_rate(dk_job *job, const dk_stage *stage, double flops, double ms)
{
    if (job->rates != NULL && job->status == DK_OK) {
        dk_rates_note(job->rates, stage->rate, flops, ms * 1e-3);
    }
}

static dk_nn *nn_of(const dk_job *job, const dk_stage *stage)
{
    bool text = stage->rate == DK_RATE_TEXT;
    return text ? dk_job_text_nn(job) : job->nn;
}

/* What is running now, for the guard's warnings. */
typedef struct running {
    dk_job *job;
    const char *stage;
} running;

static void tell_spoiled(void *context, dk_component component, int block)
{
    const running *r = context;
    dk_job_warn_spoiled(r->job, r->stage, component, block);
}

static void run_one(dk_job *job, const dk_stage *stage)
{
    begin_stage(job, stage);
    dk_nn *nn = nn_of(job, stage);
    double start = dk_now_ms(), before = nn->device->computed;
    running now = {job, stage->name};
    nn->own_cancel = job->cancel;
    nn->spoiled = tell_spoiled;
    nn->spoiled_context = &now;
    job->status = dk_nn_check(nn, &job->error);
    if (job->status == DK_OK) {
        job->status = stage->run(job, &job->error);
    }
    job->agreed = nn->agreed && job->status != DK_OK;
    nn->own_cancel = NULL;
    nn->spoiled = NULL;
    note_rate(job, stage, nn->device->computed - before, dk_now_ms() - start);
    end_stage(job, stage, dk_now_ms() - start);
}

static void run_together(dk_job *const *jobs, int count, const dk_stage *stage)
{
    for (int i = 0; i < count; i++) {
        begin_stage(jobs[i], stage);
    }
    double start = dk_now_ms(), before = jobs[0]->nn->device->computed;
    stage->run_together(jobs, count);
    note_rate(jobs[0], stage, jobs[0]->nn->device->computed - before, dk_now_ms() - start);
    for (int i = 0; i < count; i++) {
        end_stage(jobs[i], stage, dk_now_ms() - start);
    }
}

/* A rank that left the others in what all share ends them: they would wait for it. */
static void leave_unless_agreed(dk_nn *nn, const dk_job *job)
{
    if (job->status != DK_OK && !job->agreed) {
        dk_nn_abandon(nn, job->error.message);
    }
}

/* *mask becomes the leader's jobs, all of which the other ranks have prepared. */
static dk_status call_roll(dk_job *const *jobs, int count, uint64_t *mask, dk_error *err)
{
    dk_nn *nn = jobs[0]->nn;
    dk_status mine = DK_OK;
    DK_TRY(dk_nn_call_roll(nn, mask, err));
    for (int i = 0; i < count && mine == DK_OK; i++) {
        if ((*mask >> i & 1) && jobs[i]->status != DK_OK) {
            mine = dk_fail(err, jobs[i]->status, "%s", jobs[i]->error.message);
        }
    }
    return *mask != 0 ? dk_nn_agree_status(nn, mine, err) : DK_OK;
}

/* The jobs that a stage concerns: those that are well, on every rank those of the leader. None
   is passed over because the ranks do not hear each other: it has failed. */
static int list_jobs(dk_job **out, dk_job *const *jobs, int count, const dk_stage *stage,
                     bool shared)
{
    uint64_t mask = 0;
    int left = 0;
    for (int i = 0; i < count; i++) {
        bool applies = stage->applies == NULL || stage->applies(jobs[i]);
        mask |= jobs[i]->status == DK_OK && applies ? (uint64_t)1 << i : 0;
    }
    dk_error error;
    dk_nn *nn = jobs[0]->nn;
    uint64_t mine = mask;
    dk_status status = shared ? call_roll(jobs, count, &mask, &error) : DK_OK;
    for (int i = 0; i < count; i++) {
        if (status != DK_OK && mine >> i & 1) {
            jobs[i]->status = status;
            jobs[i]->error = error;
            jobs[i]->agreed = nn->agreed;
            leave_unless_agreed(nn, jobs[i]);
        } else if (status == DK_OK && mask >> i & 1) {
            out[left++] = jobs[i];
        }
    }
    return left;
}

static void run_listed(dk_job *const *jobs, int count, const dk_stage *stage)
{
    if (stage->run_together != NULL && count > 0) {
        int64_t began_ns = dk_now_ns();
        run_together(jobs, count, stage);
        trace_stage(jobs[0], stage, began_ns);
    } else {
        for (int i = 0; i < count; i++) {
            int64_t began_ns = dk_now_ns();
            run_one(jobs[i], stage);
            trace_stage(jobs[i], stage, began_ns);
        }
    }
    if (stage->rate != DK_RATE_NONE && count > 0) {
        dk_device_rest(nn_of(jobs[0], stage)->device, stage->component);
    }
}

static void follow(dk_job *const *jobs, int count, const dk_stage *stage)
{
    for (int i = 0; i < count && stage->follow != NULL; i++) {
        jobs[i]->status = stage->follow(jobs[i], &jobs[i]->error);
    }
}

static void run_shared(dk_job *const *jobs, int count, const dk_stage *stage)
{
    run_listed(jobs, count, stage);
    for (int i = 0; i < count; i++) {
        leave_unless_agreed(nn_of(jobs[i], stage), jobs[i]);
    }
}

static void run_stage(dk_job *const *jobs, int count, const dk_stage *stage)
{
    dk_job *well[DK_JOBS_TOGETHER];
    dk_nn *nn = nn_of(jobs[0], stage);
    const dk_nn_parallel *ranks = nn->parallel;
    bool shared = ranks != NULL && stage->is_shared != NULL && stage->is_shared(jobs[0]);
    int left = list_jobs(well, jobs, count, stage, shared);
    if (shared && left > 0) {
        run_shared(well, left, stage);
    } else if (!shared && jobs[0]->follows) {
        follow(well, left, stage);
    } else if (!shared) {
        nn->parallel = NULL;
        run_listed(well, left, stage);
        nn->parallel = ranks;
    }
}

static void run_stages(dk_job *const *jobs, int count, bool per_output)
{
    const dk_stage *const *stages = dk_recipe_wan;
    for (int i = 0; stages[i] != NULL; i++) {
        if (stages[i]->per_output == per_output) {
            run_stage(jobs, count, stages[i]);
        }
    }
}

void dk_jobs_run(dk_job *const *jobs, int count)
{
    assert(count <= DK_JOBS_TOGETHER);
    run_stages(jobs, count, false);
    for (int output = 0; output < jobs[0]->request.num_outputs_per_prompt; output++) {
        for (int i = 0; i < count; i++) {
            jobs[i]->output = output;
        }
        run_stages(jobs, count, true);
    }
}
