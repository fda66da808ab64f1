/* Stage: the step loop, for several jobs at once. Everything it needs is planned in a dry run
   of one step; the loop itself allocates nothing. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/trace.h"
#include "nn/parallel.h"
#include "pipeline/pipeline.h"
#include "pipeline/sharing.h"
#include "pipeline/stage.h"

enum { MAX_STATES = 8 };

/* What the loop works on for one job, all in the keep stack. */
typedef struct part {
    dk_job *job;
    dk_wan_dit_text prompt, negative;
    dk_tensor latent, conditional, unconditional;
    float *state[MAX_STATES];
} part;

typedef struct group {
    dk_nn *nn;
    const dk_wan_dit *dit;
    dk_wan_dit_grid grid;
    part parts[DK_JOBS_TOGETHER];
    int count, steps;
    int first; /* of all parts' first steps, the least */
} group;

static void combine(void *context, float *dst, const float *const *src, const float *coef,
                    int terms, int64_t count)
{
    dk_device_combine(context, dst, src, coef, terms, count);
}

static dk_status init_text(dk_job *job, dk_wan_dit_text *out, const dk_text_embeds *embeds,
                           dk_error *err)
{
    dk_nn *nn = job->nn;
    size_t mark = dk_nn_mark(nn);
    dk_tensor rows = dk_nn_temp(nn, DK_F32, embeds->rows, embeds->width);
    dk_device_write(nn->device, rows.data, embeds->values, dk_tensor_bytes(&rows));
    dk_status status = dk_wan_dit_text_init(nn, job->pipeline->transformer, out, &rows,
                                            embeds->padded - embeds->rows, err);
    dk_nn_unwind(nn, mark);
    return status;
}

static void init(group *g, dk_job *const *jobs, int count)
{
    *g = (group){.nn = jobs[0]->nn,
                 .dit = jobs[0]->pipeline->transformer,
                 .count = count,
                 .steps = dk_sampler_steps(jobs[0]->sampler),
                 .first = jobs[0]->first_step};
    for (int i = 0; i < count; i++) {
        g->parts[i].job = jobs[i];
        g->first = jobs[i]->first_step < g->first ? jobs[i]->first_step : g->first;
    }
}

static void release_texts(group *g)
{
    for (int i = 0; i < g->count; i++) {
        dk_wan_dit_text_release(&g->parts[i].prompt);
        dk_wan_dit_text_release(&g->parts[i].negative);
    }
}

static dk_status prepare_part(dk_nn *nn, part *p, dk_error *err)
{
    dk_job *job = p->job;
    int64_t count = dk_job_latent_count(job), channels = job->latent_channels;
    p->latent = dk_nn_keep(nn, DK_F32, channels, count / channels);
    p->conditional = dk_nn_keep(nn, DK_F32, channels, count / channels);
    p->unconditional = dk_nn_keep(nn, DK_F32, channels, count / channels);
    for (int i = 0; i < dk_sampler_state_tensors(job->sampler); i++) {
        dk_tensor state = dk_nn_keep(nn, DK_F32, channels, count / channels);
        p->state[i] = state.data;
        dk_device_zero(nn->device, state.data, dk_tensor_bytes(&state));
    }
    dk_sampler_reset(job->sampler);
    if (job->resumes && !nn->device->dry) {
        if (!job->follows) {
            dk_checkpoint_restore(job->saved, job, p->latent.data, p->state);
        }
        DK_TRY(dk_job_share_sampler(job, &p->latent, p->state, err));
    } else {
        dk_device_write(nn->device, p->latent.data, job->latent, dk_tensor_bytes(&p->latent));
    }
    DK_TRY(init_text(job, &p->prompt, &job->prompt, err));
    return job->guided ? init_text(job, &p->negative, &job->negative, err) : DK_OK;
}

static dk_status prepare(group *g, dk_error *err)
{
    const dk_job *job = g->parts[0].job;
    DK_TRY(dk_wan_dit_grid_init(g->nn, g->dit, &g->grid, job->latent_frames, job->latent_height,
                                job->latent_width, err));
    for (int i = 0; i < g->count; i++) {
        DK_TRY(prepare_part(g->nn, &g->parts[i], err));
    }
    return DK_OK;
}

static void dump(dk_job *job, const char *name, int index, const dk_tensor *tensor)
{
    if (job->dump != NULL && !job->nn->device->dry) {
        float *host = dk_alloc(dk_tensor_bytes(tensor));
        dk_device_read(job->nn->device, host, tensor->data, dk_tensor_bytes(tensor));
        dk_tensor shaped = DK_TENSOR(host, DK_F32, 1, job->latent_channels, job->latent_frames,
                                     job->latent_height, job->latent_width);
        dk_dump_add_indexed(job->dump, name, index, &shaped);
        dk_free(host);
    }
}

/* Whether a job has step i to make. */
static bool takes_part(const part *p, int i)
{
    return p->job->status == DK_OK && p->job->first_step <= i;
}

/* The passes of step i: one for every prompt, or two where it is guided. A part's number is
   that of its wish to stop. */
static int list_items(group *g, int i, dk_wan_dit_item *items, part **owners)
{
    int count = 0;
    for (int k = 0; k < g->count; k++) {
        part *p = &g->parts[k];
        if (takes_part(p, i)) {
            owners[count] = p;
            items[count++] = (dk_wan_dit_item){
                .text = &p->prompt, .latent = p->latent, .out = p->conditional, .wish = k};
        }
        if (takes_part(p, i) && p->job->guided) {
            owners[count] = p;
            items[count] = items[count - 1];
            items[count].text = &p->negative;
            items[count++].out = p->unconditional;
        }
    }
    return count;
}

/* Negative + scale (positive - negative): Ho and Salimans, "Classifier-Free Diffusion Guidance"
   (2022). */
static void guide(part *p, int i)
{
    dk_job *job = p->job;
    int calls = job->guided ? 2 : 1;
    dump(job, "model_out", calls * i, &p->conditional);
    if (job->guided) {
        float scale = (float)job->request.guidance_scale;
        const float *terms[] = {p->unconditional.data, p->conditional.data};
        const float coef[] = {1.0f - scale, scale};
        dump(job, "model_out", calls * i + 1, &p->unconditional);
        dk_device_combine(job->nn->device, p->conditional.data, terms, coef, 2,
                          dk_tensor_count(&p->conditional));
    }
}

/* The passes of step i. Branches of guidance that have ranks of their own take turns: item k is
   branch k's. All branches make the same number of passes, of no items at the end of the
   shorter list, since every rank looks for wishes to stop in each. */
static dk_status pass(group *g, int i, dk_wan_dit_item *items, int count, dk_error *err)
{
    int branches = dk_nn_branches(g->nn), mine = 0, most = (count + branches - 1) / branches;
    int width = dk_jobs_pass_items(g->nn->device, g->grid.tokens);
    float timestep = dk_sampler_timesteps(g->parts[0].job->sampler)[i];
    dk_wan_dit_item own[2 * DK_JOBS_TOGETHER];
    for (int k = dk_nn_branch(g->nn); k < count; k += branches) {
        own[mine++] = items[k];
    }
    dk_nn_guard_clear(&g->nn->guards[DK_COMPONENT_TRANSFORMER]);
    for (int k = 0; k < most; k += width) {
        int some = mine - k < width ? mine - k : width;
        DK_TRY(dk_wan_dit_forward_batch(g->nn, g->dit, &g->grid, own + k, some > 0 ? some : 0,
                                        timestep, err));
    }
    for (int k = 0; k < count; k++) {
        dk_nn_share_branch(g->nn, &items[k].out, k % branches);
        items[k].stopped = g->nn->stopped >> items[k].wish & 1;
    }
    return DK_OK;
}

/* A group at its step, for the guard's warnings. */
typedef struct group_step {
    group *g;
    int step;
} group_step;

static void tell_spoiled(void *context, dk_component component, int block)
{
    const group_step *at = context;
    char where[32];
    snprintf(where, sizeof where, "step %d", at->step + 1);
    for (int k = 0; k < at->g->count; k++) {
        dk_job_warn_spoiled(at->g->parts[k].job, where, component, block);
    }
}

/* The same until every block is finite, or was computed carefully, on every rank. */
static dk_status pass_guarded(group *g, int i, dk_wan_dit_item *items, int count, dk_error *err)
{
    group_step at = {g, i};
    dk_status status = DK_OK;
    g->nn->spoiled = tell_spoiled;
    g->nn->spoiled_context = &at;
    for (bool again = true; again && status == DK_OK;) {
        status = pass(g, i, items, count, err);
        again = false;
        if (status == DK_OK) {
            status = dk_nn_look(g->nn, DK_COMPONENT_TRANSFORMER, &again, err);
        }
    }
    g->nn->spoiled = NULL;
    return status;
}

/* The predictions of step i into every part's `conditional`. */
static dk_status predict(group *g, int i, dk_error *err)
{
    dk_wan_dit_item items[2 * DK_JOBS_TOGETHER];
    part *owners[2 * DK_JOBS_TOGETHER];
    int count = list_items(g, i, items, owners);
    DK_TRY(pass_guarded(g, i, items, count, err));
    for (int k = 0; k < count; k++) {
        dk_job *job = owners[k]->job;
        if (items[k].stopped && job->status == DK_OK) {
            job->status = dk_fail(&job->error, DK_CANCELLED, "stopped on request");
            job->agreed = true;
        }
    }
    for (int k = 0; k < g->count; k++) {
        if (takes_part(&g->parts[k], i)) {
            guide(&g->parts[k], i);
        }
    }
    return DK_OK;
}

/* Measures the memory of one step (all steps are alike). */
static dk_status plan(group *g, dk_error *err)
{
    dk_nn_dry_begin(g->nn);
    dk_status status = prepare(g, err);
    if (status == DK_OK && g->first < g->steps) {
        status = predict(g, g->steps - 1, err); /* all parts make the last one */
    }
    release_texts(g);
    dk_status ended = dk_nn_dry_end(g->nn, status == DK_OK ? err : NULL);
    return status != DK_OK ? status : ended;
}

static void note_step(dk_job *job, int i, int steps, double ms, double elapsed)
{
    dk_result *result = job->result;
    int made = i + 1 - job->first_step;
    result->step_ms[result->step_count++] = ms;
    dk_job_emit(job, &(dk_event){.kind = DK_EVENT_STEP,
                                 .stage = dk_stage_denoising.name,
                                 .output = job->output,
                                 .step = i + 1,
                                 .steps = steps,
                                 .ms = ms,
                                 .eta_ms = elapsed / made * (steps - i - 1)});
}

static void trace_step(const group *g, int i, int64_t began_ns)
{
    char name[32];
    if (g->nn->device->trace != NULL) {
        snprintf(name, sizeof name, "step %d of %d", i + 1, g->steps);
        dk_trace_add(g->nn->device->trace, &(dk_trace_span){.lane = DK_TRACE_STAGES,
                                                            .name = name,
                                                            .begin_ns = began_ns,
                                                            .end_ns = dk_now_ns(),
                                                            .rows = g->count * g->grid.tokens});
    }
}

/* The mask and the picture are the leader's. */
static void keep_edit(part *p, int step)
{
    dk_edit_keep(p->job, step, &p->latent);
    if (p->job->request.mask_path != NULL) {
        dk_nn_share_tensor(p->job->nn, &p->latent);
    }
}

static dk_status step(group *g, int i, dk_error *err)
{
    const dk_sampler_math math = {.combine = combine, .context = g->nn->device};
    DK_TRY(predict(g, i, err));
    for (int k = 0; k < g->count; k++) {
        part *p = &g->parts[k];
        if (takes_part(p, i)) {
            dk_preview_look(p->job, i, &p->latent, &p->conditional);
            dk_sampler_step(p->job->sampler, &math, i, p->conditional.data, p->latent.data,
                            p->state, dk_tensor_count(&p->latent));
            keep_edit(p, i + 1);
            dump(p->job, "latents", i, &p->latent);
        }
    }
    return dk_nn_sync(g->nn, err);
}

static dk_status run_steps(group *g, dk_error *err)
{
    double before = dk_now_ms(), spent[DK_JOBS_TOGETHER] = {0};
    for (int i = g->first; i < g->steps; i++) {
        int64_t began_ns = dk_now_ns();
        DK_TRY(step(g, i, err));
        trace_step(g, i, began_ns);
        double now = dk_now_ms(), ms = now - before;
        before = now;
        for (int k = 0; k < g->count; k++) {
            part *p = &g->parts[k];
            if (takes_part(p, i)) {
                spent[k] += ms;
                note_step(p->job, i, g->steps, ms, spent[k]);
                dk_preview_tell(p->job, i);
                if (p->job->saved != NULL) {
                    DK_TRY(dk_checkpoint_step(p->job->saved, p->job, i + 1, p->latent.data,
                                              p->state, err));
                }
            }
        }
    }
    return DK_OK;
}

/* The last latents come back to the host. */
static dk_status collect(group *g, dk_error *err)
{
    for (int k = 0; k < g->count; k++) {
        part *p = &g->parts[k];
        if (takes_part(p, g->steps)) {
            dk_device_read(g->nn->device, p->job->latent, p->latent.data,
                           dk_tensor_bytes(&p->latent));
            DK_TRY(dk_nn_sync(g->nn, err));
            if (p->job->saved != NULL) {
                dk_checkpoint_end(p->job->saved, p->job);
            }
        }
    }
    return DK_OK;
}

static void make_room(group *g)
{
    for (int k = 0; k < g->count; k++) {
        dk_result *result = g->parts[k].job->result;
        size_t count = (size_t)(result->step_count + g->steps);
        result->step_ms = dk_realloc(result->step_ms, count * sizeof *result->step_ms);
    }
}

static dk_status share(dk_job *const *jobs, int count, dk_error *err)
{
    for (int i = 0; i < count; i++) {
        DK_TRY(dk_job_share(jobs[i], err));
    }
    return DK_OK;
}

/* Whose wishes the loop hears. */
static void hear(dk_nn *nn, dk_job *const *jobs, int count)
{
    nn->own_cancel = count == 1 ? jobs[0]->cancel : NULL;
    nn->wish_count = count;
    for (int i = 0; i < count; i++) {
        nn->wishes[i] = jobs[i]->cancel;
    }
}

static dk_status run_group(group *g, dk_error *err)
{
    int blocks = (int)dk_wan_dit_get_config(g->dit)->layers;
    DK_TRY(dk_nn_check(g->nn, err));
    dk_status opened =
        dk_nn_guard_open(&g->nn->guards[DK_COMPONENT_TRANSFORMER], g->nn->device, blocks, err);
    DK_TRY(dk_nn_agree_status(g->nn, opened, err));
    DK_TRY(plan(g, err));
    make_room(g);
    DK_TRY(prepare(g, err));
    DK_TRY(run_steps(g, err));
    return collect(g, err);
}

static void warn_of_idle_ranks(dk_job *job)
{
    if (!job->follows && !job->guided && job->output == 0 && dk_nn_branches(job->nn) > 1) {
        dk_job_warn(
            job,
            "guidance is off (guidance_scale is %g): of enable_cfg_parallel's ranks one "
            "half computes, the other waits",
            job->request.guidance_scale);
    }
}

/* What stops the whole group stops every job of it that was still well. */
static void run_together(dk_job *const *jobs, int count)
{
    group g = {.count = 0};
    dk_nn *nn = jobs[0]->nn;
    dk_error err = {0};
    for (int k = 0; k < count; k++) {
        warn_of_idle_ranks(jobs[k]);
    }
    hear(nn, jobs, count);
    dk_status status = share(jobs, count, &err);
    if (status == DK_OK) {
        init(&g, jobs, count);
        status = run_group(&g, &err);
    }
    hear(nn, NULL, 0);
    release_texts(&g);
    for (int k = 0; k < count && status != DK_OK; k++) {
        if (jobs[k]->status == DK_OK) {
            jobs[k]->status = dk_fail(&jobs[k]->error, status, "%s", err.message);
            jobs[k]->agreed = nn->agreed;
        }
    }
}

static bool is_shared(const dk_job *job)
{
    (void)job;
    return true;
}

static dk_status plan_request(dk_job *job, dk_planning *planning, dk_error *err)
{
    group g;
    dk_job *const one = job;
    const dk_device *device = job->nn->device;
    job->first_step = job->edit.begin_step;
    init(&g, &one, 1);
    double before = dk_device_flops(device), prepared = before;
    dk_status status = prepare(&g, err);
    if (status == DK_OK) {
        prepared = dk_device_flops(device);
        status = predict(&g, g.first, err);
    }
    release_texts(&g);
    planning->step_flops = dk_device_flops(device) - prepared;
    planning->flops[DK_RATE_STEPS] =
        job->request.num_outputs_per_prompt *
        (prepared - before + planning->step_flops * (g.steps - g.first));
    return status;
}

const dk_stage dk_stage_denoising = {.name = "denoising",
                                     .per_output = true,
                                     .run_together = run_together,
                                     .is_shared = is_shared,
                                     .plan = plan_request,
                                     .rate = DK_RATE_STEPS,
                                     .component = DK_COMPONENT_TRANSFORMER};
