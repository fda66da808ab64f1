/* Running requests on an engine: alone or several together. */
#include <stdatomic.h>

#include "base/alloc.h"
#include "engine/engine_state.h"
#include "engine/recipe.h"

void dk_result_release(dk_result *result)
{
    dk_free(result->rgb);
    dk_free(result->seeds);
    dk_free(result->timings);
    dk_free(result->step_ms);
    for (int i = 0; result->recipes != NULL && i < result->outputs; i++) {
        dk_free(result->recipes[i]);
    }
    dk_free(result->recipes);
    *result = (dk_result){0};
}

static dk_status write_recipes(dk_engine *engine, const dk_job *job, dk_result *result,
                               dk_error *err)
{
    const json_t *weights;
    char latents[DK_SHA256_HEX_BYTES] = "";
    DK_TRY(dk_engine_weights(&weights, engine, err));
    if (job->request.initial_latents != NULL) {
        DK_TRY(dk_sha256_file(latents, job->request.initial_latents, err));
    }
    size_t bytes = (size_t)result->frames * (size_t)result->height * (size_t)result->width * 3;
    result->recipes = dk_alloc((size_t)result->outputs * sizeof *result->recipes);
    for (int i = 0; i < result->outputs; i++) {
        const dk_recipe_facts facts = {
            .quantization = dk_engine_quantization(engine) != NULL ? "int8" : "none",
            .quantization_max_error = engine->max_error,
            .request = &job->request,
            .model = engine->model,
            .pipeline = engine->pipeline->class_name,
            .dtype = engine->dtype,
            .cpu_level = dk_engine_cpu_level(engine),
            .attention = dk_attention_backend_name(engine->device->attention),
            .weights = weights,
            .latents_sha256 = latents[0] != '\0' ? latents : NULL,
            .output = i,
            .rgb = result->rgb + (size_t)i * bytes,
            .rgb_bytes = bytes};
        DK_TRY(dk_recipe_text(&result->recipes[i], &facts, err));
    }
    return DK_OK;
}

static dk_status run(dk_engine *engine, const dk_generation *generation, dk_result *result,
                     dk_error *err)
{
    const dk_request *request = generation->request;
    dk_result made = {0};
    dk_job job = {.pipeline = engine->pipeline,
                  .nn = &engine->nn,
                  .request = *request,
                  .events = generation->events,
                  .event_context = generation->context,
                  .result = &made};
    if (request->dump_tensors != NULL) {
        job.dump = dk_dump_create();
    }
    engine->nn.own_cancel =
        generation->cancel != NULL ? dk_cancel_flag(generation->cancel) : NULL;
    dk_status status = dk_job_run(&job, err);
    engine->nn.own_cancel = NULL;
    if (status == DK_OK && job.dump != NULL) {
        status = dk_dump_write(job.dump, request->dump_tensors, err);
    }
    if (status == DK_OK) {
        status = write_recipes(engine, &job, &made, err);
    }
    dk_dump_destroy(&job.dump);
    dk_job_release(&job);
    if (status != DK_OK) {
        dk_result_release(&made);
        return status;
    }
    *result = made;
    return DK_OK;
}

bool dk_request_joins(const dk_engine *engine, const dk_request *a, const dk_request *b)
{
    (void)engine;
    (void)a;
    (void)b;
    return false;
}

void dk_generate_together(dk_engine *engine, dk_generation *generations, int count)
{
    for (int i = 0; i < count; i++) {
        dk_generation *g = &generations[i];
        g->error = (dk_error){0};
        g->result = (dk_result){0};
        g->status = run(engine, g, &g->result, &g->error);
    }
    atomic_store(&engine->cancel->requested, false);
}

dk_status dk_generate(dk_engine *engine, const dk_request *request, dk_event_fn *events,
                      void *context, dk_result *result, dk_error *err)
{
    dk_generation one = {.request = request, .events = events, .context = context};
    dk_generate_together(engine, &one, 1);
    if (one.status != DK_OK) {
        return dk_fail(err, one.status, "%s", one.error.message);
    }
    *result = one.result;
    return DK_OK;
}
