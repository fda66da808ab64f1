/* The table of samplers and what is common to them. */
#include "samplers/sampler.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "samplers/sampler_kind.h"

static const dk_sampler_kind *const kinds[] = {
#define DK_SAMPLER(name) &dk_sampler_##name,
#include "samplers/samplers.def"
#undef DK_SAMPLER
};
enum { KINDS = sizeof kinds / sizeof *kinds };

const char *dk_sampler_names(void)
{
    return "euler, unipc, dpm++";
}

static const dk_sampler_kind *find_kind(const char *name, const char *class_name)
{
    for (int i = 0; i < KINDS; i++) {
        bool same = name != NULL ? strcmp(kinds[i]->name, name) == 0
                                 : strcmp(kinds[i]->class_name, class_name) == 0;
        if (same) {
            return kinds[i];
        }
    }
    return NULL;
}

static dk_status check_options(const dk_sampler_options *options, dk_error *err)
{
    if (options->steps < 1 || options->steps > DK_SAMPLER_MAX_STEPS) {
        return dk_fail(err, DK_INVALID, "num_inference_steps is %d, accepted are 1 to %d",
                       options->steps, DK_SAMPLER_MAX_STEPS);
    }
    if (options->flow_shift <= 0 || isinf(options->flow_shift)) {
        return dk_fail(err, DK_INVALID, "flow_shift is %g, accepted is a number above 0",
                       options->flow_shift);
    }
    return DK_OK;
}

dk_status dk_sampler_create(dk_sampler **out, const json_t *config,
                            const dk_sampler_options *options, const char *where, dk_error *err)
{
    const char *class_name = "";
    DK_TRY(check_options(options, err));
    DK_TRY(dk_json_string(config, "_class_name", 0, &class_name, where, err));
    const dk_sampler_kind *kind = find_kind(options->name, class_name);
    if (kind == NULL && options->name != NULL) {
        return dk_fail(err, DK_INVALID, "sampler '%s' is unknown, accepted are %s",
                       options->name, dk_sampler_names());
    }
    if (kind == NULL) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: _class_name '%s' is not supported, accepted are "
                       "FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, "
                       "DPMSolverMultistepScheduler",
                       where, class_name);
    }
    dk_sampler *sampler = dk_alloc(sizeof *sampler);
    sampler->kind = kind;
    dk_status status = kind->init(sampler, config, options, where, err);
    if (status != DK_OK) {
        dk_sampler_destroy(&sampler);
        return status;
    }
    *out = sampler;
    return DK_OK;
}

void dk_sampler_destroy(dk_sampler **sampler)
{
    if (*sampler != NULL) {
        dk_free((*sampler)->timesteps);
        dk_free((*sampler)->sigmas);
        dk_free(*sampler);
        *sampler = NULL;
    }
}

const char *dk_sampler_name(const dk_sampler *sampler)
{
    return sampler->kind->name;
}

int dk_sampler_steps(const dk_sampler *sampler)
{
    return sampler->steps;
}

const float *dk_sampler_timesteps(const dk_sampler *sampler)
{
    return sampler->timesteps;
}

const float *dk_sampler_sigmas(const dk_sampler *sampler)
{
    return sampler->sigmas;
}

int dk_sampler_state_tensors(const dk_sampler *sampler)
{
    return sampler->kind->state_tensors;
}

void dk_sampler_step(dk_sampler *sampler, const dk_sampler_math *math, int i,
                     const float *model_out, float *latent, float *const *state, int64_t count)
{
    sampler->kind->step(sampler, math, i, model_out, latent, state, count);
}

void dk_sampler_reset(dk_sampler *sampler)
{
    sampler->memory = (dk_sampler_memory){0};
}

dk_sampler_memory dk_sampler_remember(const dk_sampler *sampler)
{
    return sampler->memory;
}

bool dk_sampler_recall(dk_sampler *sampler, dk_sampler_memory memory)
{
    if (memory.warm < 0 || memory.warm > sampler->order || memory.used_order < 0 ||
        memory.used_order > sampler->order) {
        return false;
    }
    sampler->memory = memory;
    return true;
}
