/* The engine: a device and an opened pipeline. generation.c runs requests on it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "engine/alike.h"
#include "engine/engine_state.h"
#include "engine/option_parameters.h"
#include "engine/rank_parameters.h"
#include "engine/recipe.h"
#include "hub/hub.h"

enum { EMBEDDING_CACHE_MB = 64 };

dk_cancel *dk_cancel_create(void)
{
    dk_cancel *cancel = dk_alloc(sizeof *cancel);
    atomic_init(&cancel->requested, false);
    return cancel;
}

void dk_cancel_destroy(dk_cancel **cancel)
{
    dk_free(*cancel);
    *cancel = NULL;
}

void dk_cancel_request(dk_cancel *cancel)
{
    atomic_store(&cancel->requested, true);
}

const char *dk_version(void)
{
    return DK_VERSION;
}

void dk_engine_options_init(dk_engine_options *options)
{
    *options = (dk_engine_options){.device = "cpu",
                                   .dtype = "bf16",
                                   .num_gpus = 1,
                                   .quantization_max_error = NAN,
                                   .embedding_cache_mb = EMBEDDING_CACHE_MB,
                                   .log_level = DK_LOG_WARNING};
}

typedef struct download_context {
    const dk_engine_options *options;
} download_context;

static void report_download(void *context, const char *file, uint64_t done, uint64_t total,
                            uint64_t all_done, uint64_t all_total)
{
    (void)done;
    (void)total;
    const dk_engine_options *options = ((const download_context *)context)->options;
    if (options->download != NULL) {
        options->download(options->download_context, file, all_done, all_total);
    }
}

static dk_status resolve_model(dk_engine *engine, const dk_engine_options *options,
                               dk_error *err)
{
    download_context context = {.options = options};
    const dk_hub_options hub = {.cache_folder = options->hub_cache,
                                .endpoint = options->hub_endpoint,
                                .token = options->hub_token,
                                .offline = options->offline,
                                .log = &engine->log,
                                .progress = report_download,
                                .progress_context = &context,
                                .cancel = &engine->cancel->requested};
    return dk_hub_resolve(&engine->folder, options->model_path, &hub, err);
}

static dk_residency_options residency_of(const dk_engine_options *options)
{
    dk_residency_options r = {.pin = options->pin_cpu_memory,
                              .budget_bytes =
                                  (uint64_t)options->offload_budget_mb * 1000 * 1000};
    const struct {
        dk_component component;
        bool offload;
    } components[] = {
        {DK_COMPONENT_TEXT_ENCODER, options->text_encoder_cpu_offload},
        {DK_COMPONENT_IMAGE_ENCODER, options->image_encoder_cpu_offload},
        {DK_COMPONENT_TRANSFORMER, options->dit_cpu_offload},
        {DK_COMPONENT_VAE, options->vae_cpu_offload},
    };
    for (size_t i = 0; i < sizeof components / sizeof *components; i++) {
        r.of[components[i].component] =
            components[i].offload ? DK_OFFLOAD_COMPONENT : DK_RESIDENT;
    }
    if (options->dit_layerwise_offload) {
        r.of[DK_COMPONENT_TRANSFORMER] = DK_OFFLOAD_LAYERS;
    }
    return r;
}

/* The CPU reads weights where they lie: there is nothing to move. */
static void note_offload(const dk_engine *engine, const dk_residency_options *residency)
{
    bool any = false;
    for (int i = 0; i < DK_COMPONENT_COUNT; i++) {
        any = any || residency->of[i] != DK_RESIDENT;
    }
    if (any && engine->device->ops->rest == NULL) {
        dk_log_warn(&engine->log,
                    "offload changes nothing on %s: weights are read where they "
                    "are mapped",
                    engine->device->description);
    }
}

static bool keeps_embeddings(const dk_engine_options *options)
{
    return options->embedding_cache_mb > 0 || options->embedding_cache_path != NULL;
}

/* The CPU, for prompts, beside another device: once for the request that runs, and, when
   embeddings are kept, once for those that will come, which share nothing with it. */
static dk_status open_text_device(dk_engine *engine, const dk_engine_options *options,
                                  dk_device_options device, dk_error *err)
{
    dk_dtype type = device.exact ? DK_F32 : DK_BF16;
    const char *asked = options->text_encoder_device;
    if (asked == NULL || strcmp(asked, "same") == 0 ||
        strcmp(engine->device->ops->kind, asked) == 0) {
        return DK_OK;
    }
    device.name = asked;
    device.trace_lane = DK_TRACE_TEXT;
    device.attention = device.exact ? DK_ATTENTION_REFERENCE : DK_ATTENTION_FLASH;
    DK_TRY(dk_device_open(&engine->text_device, &device, err));
    dk_nn_init(&engine->text_nn, engine->text_device, type, &engine->cancel->requested);
    if (keeps_embeddings(options)) {
        DK_TRY(dk_device_open(&engine->ahead_device, &device, err));
        dk_nn_init(&engine->ahead_nn, engine->ahead_device, type, NULL);
    }
    return DK_OK;
}

static dk_status open_trace(dk_engine *engine, const dk_engine_options *options, dk_error *err)
{
    char process[96];
    if (options->trace_path == NULL) {
        return DK_OK;
    }
    snprintf(process, sizeof process, "%d: %s on %s", options->trace_rank,
             dk_path_name(engine->model), options->device);
    const dk_trace_options trace = {.path = options->trace_path,
                                    .process = process,
                                    .rank = options->trace_rank,
                                    .log = &engine->log};
    return dk_trace_open(&engine->trace, &trace, err);
}

static dk_status open_device(dk_engine *engine, const dk_engine_options *options, dk_error *err)
{
    bool exact = strcmp(options->dtype, "f32") == 0;
    dk_device_options device = {.name = options->device,
                                .threads = options->threads,
                                .level = options->cpu_level,
                                .exact = exact,
                                .pin = options->pin_threads,
                                .residency = residency_of(options),
                                .log = &engine->log,
                                .trace = engine->trace};
    DK_TRY(dk_attention_backend_from_name(&device.attention, options->attention_backend, exact,
                                          err));
    DK_TRY(dk_device_open(&engine->device, &device, err));
    bool cpu = strcmp(engine->device->ops->kind, "cpu") == 0;
    if (cpu && engine->quantization > DK_QUANTIZATION_INT8) {
        return dk_fail(err, DK_INVALID,
                       "quantization is '%s', accepted on the CPU are none, int8",
                       options->quantization);
    }
    note_offload(engine, &device.residency);
    dk_nn_init(&engine->nn, engine->device, exact ? DK_F32 : DK_BF16,
               &engine->cancel->requested);
    engine->nn.parallel = dk_ranks_are_several(engine->ranks) ? &engine->ranks->parallel : NULL;
    return open_text_device(engine, options, device, err);
}

static dk_status open_pipeline(dk_engine *engine, dk_error *err)
{
    dk_model_folder *folder;
    const dk_pipeline_options options = {
        .text_device = engine->text_device,
        .groups = dk_ranks_are_several(engine->ranks) ? &engine->ranks->groups : NULL,
        .quantization = engine->quantization,
        .max_error = engine->max_error,
        .cancel = &engine->cancel->requested,
        .log = &engine->log};
    DK_TRY(dk_model_folder_open(&folder, engine->folder, err));
    dk_status status =
        dk_pipeline_open(&engine->pipeline, folder, engine->device, &options, err);
    dk_model_folder_close(&folder);
    return status;
}

static dk_status open_embeddings(dk_engine *engine, const dk_engine_options *options,
                                 dk_error *err)
{
    char identity[DK_SHA256_HEX_BYTES];
    if (!keeps_embeddings(options)) {
        return DK_OK;
    }
    DK_TRY(dk_text_identity(identity, engine, err));
    engine->embeddings =
        dk_embedding_cache_create((uint64_t)options->embedding_cache_mb * 1000 * 1000,
                                  options->embedding_cache_path, identity);
    if (engine->ahead_device == NULL) {
        return DK_OK;
    }
    return dk_text_ahead_create(&engine->ahead, engine->pipeline, &engine->ahead_nn,
                                engine->embeddings, &engine->log, err);
}

/* Of the replica's ranks: folders of the same name may have been filled differently. */
static dk_status compare_models(dk_engine *engine, dk_error *err)
{
    dk_fact sum, name;
    dk_comm *comm = engine->ranks->control;
    dk_error reason;
    dk_fact_set(&sum, "a checksum of the model's files", "%s", engine->identity);
    dk_fact_set(&name, "model_path", "%s", dk_path_name(engine->model));
    dk_status status = dk_facts_compare(&sum, 1, comm, &reason);
    if (status != DK_INVALID) {
        return status == DK_OK ? DK_OK : dk_fail(err, status, "%s", reason.message);
    }
    DK_TRY(dk_facts_compare(&name, 1, comm, err));
    return dk_fail(err, status, "%s", reason.message);
}

static dk_status open_parts(dk_engine *engine, const dk_engine_options *options, dk_error *err)
{
    DK_TRY(open_trace(engine, options, err));
    if (engine->ranks != NULL) {
        dk_ranks_set_trace(engine->ranks, engine->trace);
    }
    DK_TRY(open_device(engine, options, err));
    DK_TRY(resolve_model(engine, options, err));
    DK_TRY(open_pipeline(engine, err));
    DK_TRY(dk_model_identity(engine->identity, engine, err));
    return open_embeddings(engine, options, err);
}

dk_status dk_engine_open(dk_engine **out, const dk_engine_options *options, dk_error *err)
{
    if (options->model_path == NULL || options->device == NULL || options->dtype == NULL) {
        return dk_fail(err, DK_INVALID, "model_path, device and dtype must be set");
    }
    DK_TRY(dk_parameter_check_all(&dk_option_parameters, options, err));
    DK_TRY(dk_parameter_check_all(&dk_rank_parameters, options, err));
    dk_quantization quantization;
    DK_TRY(dk_quantization_from_name(&quantization, options->quantization, err));
    if (quantization != DK_QUANTIZATION_NONE && strcmp(options->dtype, "f32") == 0) {
        return dk_fail(err, DK_INVALID,
                       "quantization is '%s' and dtype is 'f32', which is for comparisons, "
                       "accepted with %s is bf16",
                       options->quantization, options->quantization);
    }
    dk_engine *engine = dk_alloc(sizeof *engine);
    engine->log = (dk_log){
        .write = options->log, .context = options->log_context, .level = options->log_level};
    engine->owns_cancel = options->cancel == NULL;
    engine->cancel = engine->owns_cancel ? dk_cancel_create() : options->cancel;
    engine->model =
        dk_strdup(options->model_name != NULL ? options->model_name : options->model_path);
    engine->dtype = dk_strdup(options->dtype);
    engine->planner = dk_planner_create();
    engine->quantization = quantization;
    engine->max_error = isnan(options->quantization_max_error)
                            ? dk_quantization_max_error(quantization)
                            : options->quantization_max_error;
    dk_status status = dk_ranks_open(&engine->ranks, options, &engine->log, err);
    if (status == DK_OK) {
        status = dk_ranks_agree(engine->ranks, open_parts(engine, options, err), err);
    }
    if (status == DK_OK && dk_ranks_are_several(engine->ranks)) {
        status = compare_models(engine, err);
    }
    if (status == DK_OK && dk_ranks_lead(engine->ranks)) {
        status = dk_engine_warm_up(engine, options, err);
    }
    if (status != DK_OK) {
        dk_engine_close(&engine);
        return status;
    }
    *out = engine;
    return DK_OK;
}

void dk_engine_close(dk_engine **engine)
{
    if (*engine != NULL) {
        dk_engine *e = *engine;
        dk_text_ahead_destroy(&e->ahead);
        dk_embedding_cache_destroy(&e->embeddings);
        dk_planner_destroy(&e->planner);
        dk_pipeline_close(&e->pipeline); /* waits for weights on their way between ranks */
        dk_ranks_close(&e->ranks);
        dk_nn_release(&e->ahead_nn);
        dk_device_close(&e->ahead_device);
        dk_nn_release(&e->text_nn);
        dk_device_close(&e->text_device);
        dk_nn_release(&e->nn);
        dk_device_close(&e->device);
        dk_trace_close(&e->trace);
        json_decref(e->weights);
        if (e->owns_cancel) {
            dk_cancel_destroy(&e->cancel);
        }
        dk_free(e->model);
        dk_free(e->folder);
        dk_free(e->dtype);
        dk_free(e);
        *engine = NULL;
    }
}

bool dk_engine_leads(const dk_engine *engine)
{
    return dk_ranks_lead(engine->ranks);
}

dk_status dk_engine_announce(dk_engine *engine, const char *mine, char **told, dk_error *err)
{
    return dk_ranks_announce(engine->ranks, mine, told, err);
}

const char *dk_engine_identity(const dk_engine *engine)
{
    return engine->identity;
}

const char *dk_engine_dtype(const dk_engine *engine)
{
    return engine->dtype;
}

const char *dk_engine_device(const dk_engine *engine)
{
    return engine->device->description;
}

const char *dk_engine_pipeline(const dk_engine *engine)
{
    return engine->pipeline->class_name;
}

void dk_request_init(dk_request *request, const dk_engine *engine)
{
    *request = engine->pipeline->defaults;
    request->prompt = NULL;
}

void dk_engine_cancel(dk_engine *engine)
{
    dk_cancel_request(engine->cancel);
}

dk_status dk_engine_weights(const json_t **out, dk_engine *engine, dk_error *err)
{
    if (engine->weights == NULL) {
        DK_TRY(dk_recipe_weights(&engine->weights, engine->folder,
                                 engine->pipeline->weight_files, &engine->cancel->requested,
                                 err));
    }
    *out = engine->weights;
    return DK_OK;
}

const char *dk_engine_quantization(const dk_engine *engine)
{
    return engine->pipeline->quantization;
}

const char *dk_engine_cpu_level(const dk_engine *engine)
{
    return engine->device->level;
}

dk_status dk_request_check(dk_request *request, dk_engine *engine, dk_event_fn *events,
                           void *context, dk_error *err)
{
    dk_job job = {.pipeline = engine->pipeline,
                  .nn = &engine->nn,
                  .request = *request,
                  .events = events,
                  .event_context = context};
    dk_status status = dk_job_check(&job, err);
    if (status == DK_OK) {
        *request = job.request;
    }
    dk_job_release(&job);
    return status;
}

/* A rank that waits for another does not hang: the call has a deadline of its own, whose error
   says more. */
uint64_t dk_engine_pulse(const dk_engine *engine)
{
    dk_engine *e = (dk_engine *)(uintptr_t)engine;
    uint64_t waits = e->ranks != NULL && dk_ranks_are_busy(e->ranks)
                         ? atomic_fetch_add(&e->waits, 1) + 1
                         : atomic_load(&e->waits);
    return dk_device_pulse(engine->device) + waits;
}

bool dk_engine_prepares(const dk_engine *engine)
{
    return engine->ahead != NULL;
}

void dk_engine_prepare(dk_engine *engine, const dk_request *request)
{
    if (engine->ahead != NULL && request->prompt != NULL) {
        dk_text_ahead_add(engine->ahead, request->prompt);
    }
    if (engine->ahead != NULL && request->guidance_scale > 1.0 &&
        request->negative_prompt != NULL) {
        dk_text_ahead_add(engine->ahead, request->negative_prompt);
    }
}

void dk_engine_embedding_stats(const dk_engine *engine, dk_embedding_stats *out)
{
    dk_embedding_cache_stats(engine->embeddings, out);
}

char *dk_engine_explain(const dk_engine *engine)
{
    const dk_device *device = engine->device;
    const dk_device_traffic *moved = &device->traffic;
    dk_string text = DK_STRING_EMPTY;
    dk_string_printf(&text, "device: %s\n", device->description);
    if (engine->text_device != NULL) {
        dk_string_printf(&text, "prompts: %s\n", engine->text_device->description);
    }
    dk_string_printf(&text, "attention: %s\n", dk_device_attention_reason(device));
    const char *quantized = dk_engine_quantization(engine);
    dk_string_printf(&text, "quantization: %s\n", quantized != NULL ? quantized : "none");
    if (moved->copies > 0) {
        dk_string_printf(&text,
                         "offload: %llu copies, %.1f MB, %.4f s, %.4f s of them with no "
                         "operation running; %llu were asked for late\n",
                         (unsigned long long)moved->copies, moved->bytes * 1e-6, moved->seconds,
                         moved->stalled, (unsigned long long)moved->late);
    }
    if (device->distrusted > 0) {
        dk_string_printf(&text, "distrusted: %d shapes of products, see the log's warnings\n",
                         device->distrusted);
    }
    return dk_string_take(&text);
}

void dk_text_free(char *text)
{
    dk_free(text);
}
