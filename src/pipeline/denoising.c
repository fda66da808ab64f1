/* Stage: the step loop. Everything it needs is planned in a dry run of one step; the loop
   itself allocates nothing. */

#include "base/alloc.h"
#include "base/clock.h"
#include "pipeline/pipeline.h"
#include "pipeline/stage.h"

enum { MAX_STATES = 8 };

/* What the loop works on, all in the keep stack. */
typedef struct loop {
    dk_wan_dit_grid grid;
    dk_wan_dit_text prompt, negative;
    dk_tensor latent, conditional, unconditional;
    float *state[MAX_STATES];
} loop;

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

static void release(loop *l)
{
    dk_wan_dit_text_release(&l->prompt);
    dk_wan_dit_text_release(&l->negative);
}

static dk_status prepare(dk_job *job, loop *l, dk_error *err)
{
    dk_nn *nn = job->nn;
    const dk_wan_dit *dit = job->pipeline->transformer;
    int64_t count = dk_job_latent_count(job), channels = job->latent_channels;
    *l = (loop){0};
    l->latent = dk_nn_keep(nn, DK_F32, channels, count / channels);
    l->conditional = dk_nn_keep(nn, DK_F32, channels, count / channels);
    l->unconditional = dk_nn_keep(nn, DK_F32, channels, count / channels);
    for (int i = 0; i < dk_sampler_state_tensors(job->sampler); i++) {
        l->state[i] = dk_nn_keep(nn, DK_F32, channels, count / channels).data;
    }
    dk_device_write(nn->device, l->latent.data, job->latent, dk_tensor_bytes(&l->latent));
    DK_TRY(dk_wan_dit_grid_init(nn, dit, &l->grid, job->latent_frames, job->latent_height,
                                job->latent_width, err));
    DK_TRY(init_text(job, &l->prompt, &job->prompt, err));
    return job->guided ? init_text(job, &l->negative, &job->negative, err) : DK_OK;
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

/* The prediction of step i into l->conditional: negative + scale (positive - negative) when
   guided (Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022). */
static dk_status predict(dk_job *job, loop *l, int i, dk_error *err)
{
    dk_nn *nn = job->nn;
    const dk_wan_dit *dit = job->pipeline->transformer;
    float timestep = dk_sampler_timesteps(job->sampler)[i];
    int calls = job->guided ? 2 : 1;
    DK_TRY(dk_wan_dit_forward(nn, dit, &l->grid, &l->prompt, &l->conditional, &l->latent,
                              timestep, err));
    dump(job, "model_out", calls * i, &l->conditional);
    if (!job->guided) {
        return DK_OK;
    }
    DK_TRY(dk_wan_dit_forward(nn, dit, &l->grid, &l->negative, &l->unconditional, &l->latent,
                              timestep, err));
    dump(job, "model_out", calls * i + 1, &l->unconditional);
    float scale = (float)job->request.guidance_scale;
    const float *terms[] = {l->unconditional.data, l->conditional.data};
    const float coef[] = {1.0f - scale, scale};
    dk_device_combine(nn->device, l->conditional.data, terms, coef, 2,
                      dk_tensor_count(&l->conditional));
    return DK_OK;
}

static dk_status step(dk_job *job, loop *l, int i, dk_error *err)
{
    const dk_sampler_math math = {.combine = combine, .context = job->nn->device};
    DK_TRY(predict(job, l, i, err));
    dk_sampler_step(job->sampler, &math, i, l->conditional.data, l->latent.data, l->state,
                    dk_tensor_count(&l->latent));
    dump(job, "latents", i, &l->latent);
    return dk_device_sync(job->nn->device, err);
}

/* Measures the memory of one step (all steps are alike). */
static dk_status plan(dk_job *job, dk_error *err)
{
    loop l;
    dk_nn_dry_begin(job->nn);
    dk_status status = prepare(job, &l, err);
    if (status == DK_OK) {
        status = predict(job, &l, 0, err);
    }
    release(&l);
    dk_status ended = dk_nn_dry_end(job->nn, status == DK_OK ? err : NULL);
    return status != DK_OK ? status : ended;
}

static void note_step(dk_job *job, int i, int steps, double ms, double elapsed)
{
    dk_result *result = job->result;
    result->step_ms[result->step_count++] = ms;
    if (job->events != NULL) {
        dk_event event = {.kind = DK_EVENT_STEP,
                          .stage = dk_stage_denoising.name,
                          .output = job->output,
                          .step = i + 1,
                          .steps = steps,
                          .ms = ms,
                          .eta_ms = elapsed / (i + 1) * (steps - i - 1)};
        job->events(job->event_context, &event);
    }
}

static dk_status run(dk_job *job, dk_error *err)
{
    loop l;
    int steps = dk_sampler_steps(job->sampler);
    dk_result *result = job->result;
    DK_TRY(plan(job, err));
    size_t step_count = (size_t)(result->step_count + steps);
    result->step_ms = dk_realloc(result->step_ms, step_count * sizeof *result->step_ms);
    dk_sampler_reset(job->sampler);
    dk_status status = prepare(job, &l, err);
    double start = dk_now_ms(), before = start;
    for (int i = 0; i < steps && status == DK_OK; i++) {
        status = step(job, &l, i, err);
        double now = dk_now_ms();
        if (status == DK_OK) {
            note_step(job, i, steps, now - before, now - start);
        }
        before = now;
    }
    if (status == DK_OK) {
        dk_device_read(job->nn->device, job->latent, l.latent.data, dk_tensor_bytes(&l.latent));
        status = dk_device_sync(job->nn->device, err);
    }
    release(&l);
    return status;
}

const dk_stage dk_stage_denoising = {.name = "denoising", .per_output = true, .run = run};
