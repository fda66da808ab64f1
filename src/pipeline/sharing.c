/* The leader's part of a job, on all ranks. */
#include "pipeline/sharing.h"

#include "base/alloc.h"
#include "nn/parallel.h"

/* Sizes first, arrays after them. */
typedef struct outline {
    int64_t prompt[3], negative[3]; /* rows, padded, width */
    int64_t first_step, resumes;
} outline;

static void put(int64_t out[3], const dk_text_embeds *embeds)
{
    out[0] = embeds->rows;
    out[1] = embeds->padded;
    out[2] = embeds->width;
}

/* Followers may have computed them already, or got them with the output before. */
static dk_status share_text(dk_nn *nn, dk_text_embeds *embeds, const int64_t sizes[3],
                            dk_error *err)
{
    size_t bytes = (size_t)(sizes[0] * sizes[2]) * sizeof(float);
    if (bytes > 0 && embeds->values == NULL) {
        void *values;
        DK_TRY(dk_try_alloc(&values, bytes, "text embeddings", err));
        *embeds = (dk_text_embeds){values, sizes[0], sizes[1], sizes[2]};
    }
    dk_nn_share(nn, embeds->values, bytes);
    return DK_OK;
}

dk_status dk_job_share(dk_job *job, dk_error *err)
{
    dk_nn *nn = job->nn;
    outline o = {.first_step = job->first_step, .resumes = job->resumes};
    if (nn->parallel == NULL) {
        return DK_OK;
    }
    put(o.prompt, &job->prompt);
    put(o.negative, &job->negative);
    dk_nn_share(nn, &o, sizeof o);
    job->first_step = (int)o.first_step;
    job->resumes = o.resumes != 0;
    dk_status status = share_text(nn, &job->prompt, o.prompt, err);
    if (status == DK_OK) {
        status = share_text(nn, &job->negative, o.negative, err);
    }
    if (status == DK_OK) {
        dk_nn_share(nn, job->latent, (size_t)dk_job_latent_count(job) * sizeof(float));
    }
    return status != DK_OK ? status : dk_nn_sync(nn, err);
}

dk_status dk_job_share_sampler(dk_job *job, const dk_tensor *latent, float *const *state,
                               dk_error *err)
{
    dk_nn *nn = job->nn;
    if (nn->parallel == NULL) {
        return DK_OK;
    }
    dk_sampler_memory memory = dk_sampler_remember(job->sampler);
    dk_nn_share(nn, &memory, sizeof memory);
    if (!dk_sampler_recall(job->sampler, memory)) {
        return dk_fail(err, DK_INTERNAL, "the leader's sampler is another one");
    }
    dk_nn_share_tensor(nn, latent);
    for (int i = 0; i < dk_sampler_state_tensors(job->sampler); i++) {
        dk_tensor tensor = *latent;
        tensor.data = state[i];
        dk_nn_share_tensor(nn, &tensor);
    }
    return DK_OK;
}
