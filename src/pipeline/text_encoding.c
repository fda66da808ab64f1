/* Stage: prompts become text embeddings, computed or found. Only real tokens are computed:
   masked padding changes nothing for them, and WanPipeline zeroes its rows afterwards. */
#include "pipeline/text_encoding.h"

#include <string.h>

#include "base/alloc.h"
#include "nn/parallel.h"
#include "pipeline/stage.h"
#include "pipeline/text_ahead.h"
#include "tokenizer/clean.h"

dk_status dk_text_tokenize(const dk_pipeline *pipeline, const char *name, const char *text,
                           dk_tokens *tokens, dk_error *err)
{
    dk_string clean = DK_STRING_EMPTY;
    dk_status status = dk_clean_prompt_wan(&clean, text, strlen(text), err);
    if (status == DK_OK) {
        status = dk_tokenizer_encode(pipeline->tokenizer, dk_string_text(&clean), clean.length,
                                     DK_WAN_TEXT_ROWS, tokens, err);
    }
    dk_string_release(&clean);
    return status == DK_OK ? DK_OK : dk_fail_in(err, status, "%s", name);
}

dk_status dk_text_forward(dk_nn *nn, const dk_t5_encoder *encoder, const dk_tokens *tokens,
                          float **values, dk_error *err)
{
    int count = (int)tokens->count;
    int64_t width = dk_t5_encoder_config(encoder)->d_model;
    void *made = NULL;
    dk_nn_dry_begin(nn);
    dk_tensor hidden = dk_nn_keep(nn, DK_F32, count, width);
    dk_status status = dk_t5_encoder_forward(nn, encoder, &hidden, tokens->ids, count, err);
    dk_status planned = dk_nn_dry_end(nn, err);
    if (status != DK_OK || planned != DK_OK) {
        return status != DK_OK ? status : planned;
    }
    hidden = dk_nn_keep(nn, DK_F32, count, width);
    DK_TRY(dk_t5_encoder_forward(nn, encoder, &hidden, tokens->ids, count, err));
    DK_TRY(dk_try_alloc(&made, dk_tensor_bytes(&hidden), "text embeddings", err));
    dk_device_read(nn->device, made, hidden.data, dk_tensor_bytes(&hidden));
    status = dk_nn_sync(nn, err);
    if (status != DK_OK) {
        dk_free(made);
        return status;
    }
    *values = made;
    return DK_OK;
}

static void dump(dk_dump *dump, const char *name, const dk_text_embeds *embeds)
{
    if (dump != NULL) {
        size_t row = (size_t)embeds->width * sizeof(float);
        float *padded = dk_alloc((size_t)embeds->padded * row);
        memcpy(padded, embeds->values, (size_t)embeds->rows * row);
        dk_tensor tensor = DK_TENSOR(padded, DK_F32, 1, embeds->padded, embeds->width);
        dk_dump_add(dump, name, &tensor);
        dk_free(padded);
    }
}

/* What others are encoding at this moment is waited for, in the cache. */
static dk_status encode(dk_job *job, const char *name, const char *text, dk_text_embeds *out,
                        dk_error *err)
{
    dk_nn *nn = dk_job_text_nn(job);
    dk_tokens tokens = {0};
    dk_embedding_claim *claim = NULL;
    DK_TRY(dk_text_tokenize(job->pipeline, name, text, &tokens, err));
    int64_t count = (int64_t)tokens.count;
    int64_t width = dk_t5_encoder_config(job->pipeline->text_encoder)->d_model;
    dk_status status = DK_OK;
    *out = (dk_text_embeds){.rows = count, .padded = DK_WAN_TEXT_ROWS, .width = width};
    out->values =
        dk_embedding_cache_claim(job->embeddings, tokens.ids, count, width, nn, &claim);
    /* What the leader found nobody computes. */
    bool found = dk_nn_agree(nn, out->values != NULL) != 0;
    if (!found) {
        dk_text_ahead_pause(job->ahead);
        status = dk_text_forward(nn, job->pipeline->text_encoder, &tokens, &out->values, err);
        dk_text_ahead_go_on(job->ahead);
        dk_embedding_cache_settle(job->embeddings, &claim, out->values);
    }
    dk_tokens_release(&tokens);
    return status;
}

static dk_status run(dk_job *job, dk_error *err)
{
    DK_TRY(encode(job, "prompt", job->request.prompt, &job->prompt, err));
    dump(job->dump, "prompt_embeds", &job->prompt);
    if (job->guided) {
        DK_TRY(
            encode(job, "negative_prompt", job->request.negative_prompt, &job->negative, err));
        dump(job->dump, "negative_prompt_embeds", &job->negative);
    }
    return DK_OK;
}

static dk_status plan_one(dk_job *job, const char *name, const char *text, dk_text_embeds *out,
                          dk_error *err)
{
    dk_nn *nn = dk_job_text_nn(job);
    const dk_t5_encoder *encoder = job->pipeline->text_encoder;
    int64_t width = dk_t5_encoder_config(encoder)->d_model;
    dk_tokens tokens = {0};
    DK_TRY(dk_text_tokenize(job->pipeline, name, text, &tokens, err));
    int count = (int)tokens.count;
    size_t kept = nn->keep.used;
    dk_tensor hidden = dk_nn_keep(nn, DK_F32, count, width);
    dk_status status = dk_t5_encoder_forward(nn, encoder, &hidden, tokens.ids, count, err);
    nn->keep.used = kept;
    *out = (dk_text_embeds){.rows = count, .padded = DK_WAN_TEXT_ROWS, .width = width};
    dk_tokens_release(&tokens);
    return status;
}

static dk_status plan(dk_job *job, dk_planning *planning, dk_error *err)
{
    double before = dk_device_flops(dk_job_text_nn(job)->device);
    DK_TRY(plan_one(job, "prompt", job->request.prompt, &job->prompt, err));
    if (job->guided) {
        DK_TRY(plan_one(job, "negative_prompt", job->request.negative_prompt, &job->negative,
                        err));
    }
    planning->flops[DK_RATE_TEXT] = dk_device_flops(dk_job_text_nn(job)->device) - before;
    planning->host_bytes +=
        (uint64_t)((job->prompt.rows + job->negative.rows) * job->prompt.width) * sizeof(float);
    return DK_OK;
}

static bool is_shared(const dk_job *job)
{
    return job->pipeline->text_is_shared;
}

const dk_stage dk_stage_text_encoding = {.name = "text encoding",
                                         .run = run,
                                         .is_shared = is_shared,
                                         .plan = plan,
                                         .rate = DK_RATE_TEXT,
                                         .component = DK_COMPONENT_TEXT_ENCODER};
