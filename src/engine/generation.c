/* Running requests on an engine: alone or several together. */
#include <stdatomic.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "engine/engine_state.h"
#include "engine/recipe.h"
#include "nn/parallel.h"
#include "pipeline/request_parameters.h"

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
    dk_file_sums sums;
    DK_TRY(dk_engine_weights(&weights, engine, err));
    DK_TRY(dk_file_sums_read(&sums, &job->request, err));
    size_t bytes = (size_t)result->frames * (size_t)result->height * (size_t)result->width * 3;
    result->recipes = dk_alloc((size_t)result->outputs * sizeof *result->recipes);
    for (int i = 0; i < result->outputs; i++) {
        const dk_recipe_facts facts = {
            .quantization = dk_quantization_name(engine->quantization),
            .quantization_max_error = engine->max_error,
            .request = &job->request,
            .model = engine->model,
            .pipeline = engine->pipeline->class_name,
            .dtype = engine->dtype,
            .cpu_level = dk_engine_cpu_level(engine),
            .attention = dk_attention_backend_name(engine->device->attention),
            .layout =
                dk_ranks_are_several(engine->ranks) ? &engine->ranks->groups.layout : NULL,
            .weights = weights,
            .sums = &sums,
            .output = i,
            .rgb = result->rgb + (size_t)i * bytes,
            .rgb_bytes = bytes};
        DK_TRY(dk_recipe_text(&result->recipes[i], &facts, err));
    }
    return DK_OK;
}

/* A generation under way: its job, and the parts of the result that are made so far. */
typedef struct work {
    dk_generation *generation;
    dk_job job;
    dk_result made;
    char identity[DK_SHA256_HEX_BYTES]; /* of the checkpoint */
} work;

static void begin(dk_engine *engine, work *w, dk_generation *generation)
{
    const dk_request *request = generation->request;
    generation->error = (dk_error){0};
    generation->result = (dk_result){0};
    *w = (work){.generation = generation};
    w->job = (dk_job){.pipeline = engine->pipeline,
                      .nn = &engine->nn,
                      .text_nn = engine->text_device != NULL ? &engine->text_nn : NULL,
                      .request = *request,
                      .events = generation->events,
                      .event_context = generation->context,
                      .log = &engine->log,
                      .previews = generation->previews,
                      .embeddings = engine->embeddings,
                      .ahead = engine->ahead,
                      .rates = &engine->rates,
                      .result = &w->made};
    if (generation->cancel != NULL) {
        w->job.cancel = dk_cancel_flag(generation->cancel);
    }
    if (request->dump_tensors != NULL) {
        w->job.dump = dk_dump_create();
    }
    if (generation->checkpoint != NULL) {
        w->job.status = dk_generation_identity(w->identity, engine, request, &w->job.error);
        w->job.checkpoint = (dk_checkpoint_options){.path = generation->checkpoint,
                                                    .identity = w->identity,
                                                    .every_s = generation->checkpoint_every_s};
    }
}

static void end(dk_engine *engine, work *w)
{
    dk_generation *generation = w->generation;
    dk_job *job = &w->job;
    if (job->status == DK_OK && job->dump != NULL) {
        job->status = dk_dump_write(job->dump, job->request.dump_tensors, &job->error);
    }
    if (job->status == DK_OK) {
        job->status = write_recipes(engine, job, &w->made, &job->error);
    }
    generation->status = job->status;
    generation->error = job->error;
    if (job->status == DK_OK) {
        generation->result = w->made;
    } else {
        dk_result_release(&w->made);
    }
    dk_dump_destroy(&job->dump);
    dk_job_release(job);
}

/* A rank that is cut off is of no more use: for its requests that is the loss of a device. */
static void note_loss(const dk_engine *engine, dk_job *job)
{
    if (engine->nn.cut_off && job->status != DK_OK && job->status != DK_DEVICE) {
        dk_status status = dk_fail_in(&job->error, DK_DEVICE, "ranks");
        job->status = status;
        job->error.status = status;
    }
}

/* Tells the other ranks what is about to run. */
static dk_status announce(dk_engine *engine, const dk_generation *generations, int count,
                          dk_error *err)
{
    if (!dk_ranks_are_several(engine->ranks)) {
        return DK_OK;
    }
    json_t *requests = json_array();
    for (int i = 0; i < count; i++) {
        json_array_append_new(requests, dk_request_to_json(generations[i].request));
    }
    json_t *order = json_pack("{s:o}", "run", requests);
    char *text = json_dumps(order, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(order);
    dk_status status = text == NULL
                           ? dk_fail(err, DK_INVALID, "a text of the request is not UTF-8")
                           : dk_ranks_tell(engine->ranks, text, err);
    free(text);
    if (status != DK_OK && text != NULL) {
        dk_nn_abandon(&engine->nn, err->message);
        return dk_fail_in(err, DK_DEVICE, "ranks");
    }
    return status;
}

void dk_engine_run(dk_engine *engine, dk_generation *generations, int count)
{
    dk_error error;
    dk_status told = announce(engine, generations, count, &error);
    for (int i = 0; i < count && told != DK_OK; i++) {
        generations[i].status = told;
        generations[i].error = error;
    }
    if (told != DK_OK) {
        return;
    }
    work *works = dk_alloc((size_t)count * sizeof *works);
    dk_job *jobs[DK_JOBS_TOGETHER];
    for (int i = 0; i < count; i++) {
        begin(engine, &works[i], &generations[i]);
        jobs[i] = &works[i].job;
    }
    dk_jobs_run(jobs, count);
    for (int i = 0; i < count; i++) {
        note_loss(engine, jobs[i]);
        end(engine, &works[i]);
    }
    dk_free(works);
}

bool dk_request_joins(const dk_engine *engine, const dk_request *a, const dk_request *b)
{
    return dk_request_most_together(engine->pipeline, engine->device, a) > 1 &&
           dk_requests_are_alike(a, b);
}

void dk_generate_together(dk_engine *engine, dk_generation *generations, int count)
{
    int most = DK_JOBS_TOGETHER;
    for (int i = 0; i < count; i++) {
        bool joins = dk_request_joins(engine, generations[0].request, generations[i].request);
        most = joins ? most : 1;
    }
    if (count > 0 && most > 1) {
        most =
            dk_request_most_together(engine->pipeline, engine->device, generations[0].request);
    }
    for (int i = 0; i < count; i += most) {
        dk_engine_warm_up_for(engine, &generations[i]);
        dk_engine_run(engine, generations + i, count - i < most ? count - i : most);
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

/* The leader's requests, computed with it; texts are borrowed from the order. */
static dk_status follow_requests(dk_engine *engine, const json_t *requests, dk_error *err)
{
    int count = (int)json_array_size(requests);
    dk_job jobs[DK_JOBS_TOGETHER], *list[DK_JOBS_TOGETHER];
    dk_result results[DK_JOBS_TOGETHER] = {0};
    if (count < 1 || count > DK_JOBS_TOGETHER) {
        return dk_fail(err, DK_INTERNAL, "an order of %d requests", count);
    }
    for (int i = 0; i < count; i++) {
        jobs[i] = (dk_job){.pipeline = engine->pipeline,
                           .nn = &engine->nn,
                           .follows = true,
                           .result = &results[i]};
        list[i] = &jobs[i];
        dk_request_init(&jobs[i].request, engine);
        DK_TRY(
            dk_request_from_json(&jobs[i].request, json_array_get(requests, (size_t)i), err));
    }
    dk_jobs_run(list, count);
    for (int i = 0; i < count; i++) {
        if (jobs[i].status != DK_OK && jobs[i].status != DK_CANCELLED) {
            dk_log_warn(&engine->log, "%s", jobs[i].error.message);
        }
        dk_job_release(&jobs[i]);
        dk_result_release(&results[i]);
    }
    return engine->nn.cut_off ? dk_fail(err, DK_DEVICE, "%s", jobs[0].error.message) : DK_OK;
}

dk_status dk_engine_follow(dk_engine *engine, dk_error *err)
{
    if (dk_engine_leads(engine)) {
        return dk_fail(err, DK_INVALID, "this rank leads: the others follow it");
    }
    for (;;) {
        char *text;
        DK_TRY(dk_ranks_listen(engine->ranks, &text, err));
        if (text == NULL) {
            return DK_OK;
        }
        json_t *order = json_loads(text, 0, NULL);
        dk_status status = follow_requests(engine, json_object_get(order, "run"), err);
        json_decref(order);
        dk_free(text);
        DK_TRY(status);
    }
}
