/* Planning a request, and the rates that turn operations into seconds. */
#include "pipeline/planning.h"

#include "pipeline/pipeline.h"
#include "pipeline/stage.h"

void dk_rates_note(dk_rates *rates, dk_rate rate, double flops, double seconds)
{
    if (rate != DK_RATE_NONE && flops > 0 && seconds > 0) {
        _Atomic double *known = &rates->per_second[rate];
        double before = atomic_load_explicit(known, memory_order_relaxed);
        double now = flops / seconds;
        atomic_store_explicit(known, before > 0 ? (before + now) / 2 : now,
                              memory_order_relaxed);
    }
}

static dk_status plan_stage(dk_job *job, const dk_stage *stage, dk_planning *planning,
                            dk_error *err)
{
    dk_nn *nn = job->nn;
    dk_nn_dry_begin(nn);
    dk_status status = stage->plan(job, planning, err);
    uint64_t temp = nn->temp.peak, keep = nn->keep.peak;
    dk_status ended = dk_nn_dry_end(nn, status == DK_OK ? err : NULL);
    planning->temp_bytes = temp > planning->temp_bytes ? temp : planning->temp_bytes;
    planning->keep_bytes = keep > planning->keep_bytes ? keep : planning->keep_bytes;
    return status != DK_OK ? status : ended;
}

dk_status dk_job_plan(dk_job *job, dk_planning *planning, dk_error *err)
{
    const dk_stage *const *stages = dk_recipe_wan;
    const dk_request *r = &job->request;
    DK_TRY(dk_job_check(job, err));
    uint64_t rgb = (uint64_t)r->width * (uint64_t)r->height * 3;
    planning->host_bytes +=
        rgb * (uint64_t)r->num_frames * (uint64_t)r->num_outputs_per_prompt +
        (uint64_t)dk_job_latent_count(job) * sizeof(float);
    for (int i = 0; stages[i] != NULL; i++) {
        bool applies = stages[i]->applies == NULL || stages[i]->applies(job);
        if (applies && stages[i]->plan != NULL) {
            DK_TRY(plan_stage(job, stages[i], planning, err));
        }
    }
    return DK_OK;
}
