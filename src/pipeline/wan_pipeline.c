/* WanPipeline: text to video and pictures with Wan 2.1. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "pipeline/pipeline.h"
#include "pipeline/stage.h"

const dk_stage *const dk_recipe_wan[] = {
    &dk_stage_input_validation,
    &dk_stage_text_encoding,
    &dk_stage_image_encoding,
    &dk_stage_latent_preparation,
    &dk_stage_timestep_preparation,
    &dk_stage_preview_preparation,
    &dk_stage_denoising,
    &dk_stage_decoding,
    NULL,
};

static dk_status check_index(const dk_model_folder *folder, dk_error *err)
{
    const json_t *index = dk_model_folder_index(folder);
    if (strcmp(dk_model_folder_class(folder), "WanPipeline") != 0) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: pipeline class '%s' is not supported, accepted is 'WanPipeline'",
                       dk_model_folder_path(folder), dk_model_folder_class(folder));
    }
    bool expand = false;
    DK_TRY(dk_json_bool(index, "expand_timesteps", DK_JSON_NULL_IS_ABSENT, &expand,
                        "model_index.json", err));
    if (expand || dk_model_folder_has(folder, "transformer_2") ||
        dk_model_folder_has(folder, "image_encoder")) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: expand_timesteps, transformer_2 and image_encoder (Wan 2.2 and "
                       "image-to-video) are not supported, accepted is Wan 2.1 text-to-video",
                       dk_model_folder_path(folder));
    }
    return DK_OK;
}

/* Keeps the paths of a component's weight files, for recipes. */
static void note_files(dk_pipeline *pipeline, const dk_weights *weights)
{
    size_t count = 0;
    while (pipeline->weight_files != NULL && pipeline->weight_files[count] != NULL) {
        count++;
    }
    for (int i = 0; i < dk_weights_file_count(weights); i++, count++) {
        pipeline->weight_files =
            dk_realloc(pipeline->weight_files, (count + 2) * sizeof(char *));
        pipeline->weight_files[count] = dk_strdup(dk_weights_file(weights, i));
        pipeline->weight_files[count + 1] = NULL;
    }
}

/* What opening a component begins with: its config and its weights. */
typedef struct component {
    json_t *config;
    char *where, *path;
    dk_weights *weights;
} component;

static void release(component *c)
{
    json_decref(c->config);
    dk_free(c->where);
    dk_free(c->path);
    dk_weights_unref(c->weights);
}

static dk_status open_component(component *c, const dk_model_folder *folder, dk_component kind,
                                dk_device *device, const char *const *classes, dk_error *err)
{
    const char *name = dk_component_names[kind];
    *c = (component){0};
    DK_TRY(dk_model_folder_component(folder, name, classes, &c->path, err));
    DK_TRY(dk_model_folder_config(folder, name, "config.json", &c->config, &c->where, err));
    DK_TRY(dk_weights_open(&c->weights, c->path, err));
    dk_weights_attach(c->weights, device, kind);
    return DK_OK;
}

/* Splits the text encoder, where every rank gets a head. */
static void share_text_encoder(dk_pipeline *pipeline, dk_weights *weights, dk_comm *ranks,
                               const dk_t5_config *config)
{
    if (ranks != NULL && config->num_heads >= dk_comm_ranks(ranks)) {
        dk_weights_split(weights, ranks);
        pipeline->text_is_shared = true;
    }
}

static dk_status open_text_encoder(dk_pipeline *pipeline, const dk_model_folder *folder,
                                   dk_device *device, dk_comm *ranks, dk_error *err)
{
    static const char *const classes[] = {"UMT5EncoderModel", "T5EncoderModel", NULL};
    static const char *const tokenizers[] = {"T5TokenizerFast", "T5Tokenizer", NULL};
    component c;
    dk_t5_config config;
    char *tokenizer = NULL;
    dk_status status =
        open_component(&c, folder, DK_COMPONENT_TEXT_ENCODER, device, classes, err);
    if (status == DK_OK) {
        status = dk_t5_config_parse(&config, c.config, c.where, err);
    }
    if (status == DK_OK) {
        note_files(pipeline, c.weights);
        share_text_encoder(pipeline, c.weights, ranks, &config);
        status = dk_t5_encoder_create(&pipeline->text_encoder, &config, c.weights, c.path, err);
    }
    if (status == DK_OK) {
        status = dk_model_folder_component(folder, "tokenizer", tokenizers, &tokenizer, err);
    }
    if (status == DK_OK) {
        status = dk_tokenizer_open(&pipeline->tokenizer, tokenizer, err);
    }
    if (status == DK_OK && dk_tokenizer_largest_id(pipeline->tokenizer) >= config.vocab_size) {
        status = dk_fail(err, DK_MISMATCH,
                         "%s: its largest id is %d, but the text encoder has %lld embeddings",
                         tokenizer, (int)dk_tokenizer_largest_id(pipeline->tokenizer),
                         (long long)config.vocab_size);
    }
    dk_free(tokenizer);
    release(&c);
    return status;
}

static dk_status open_transformer(dk_pipeline *pipeline, const dk_model_folder *folder,
                                  dk_device *device, const dk_groups *groups, dk_error *err)
{
    static const char *const classes[] = {"WanTransformer3DModel", NULL};
    component c;
    dk_wan_dit_config config;
    dk_status status =
        open_component(&c, folder, DK_COMPONENT_TRANSFORMER, device, classes, err);
    if (status == DK_OK) {
        status = dk_wan_dit_config_parse(&config, c.config, c.where, err);
    }
    if (status == DK_OK && groups != NULL) {
        status = dk_wan_dit_check_layout(&config, &groups->layout, c.where, err);
    }
    if (status == DK_OK) {
        note_files(pipeline, c.weights);
        dk_weights_split(c.weights, groups != NULL ? groups->tp : NULL);
        if (groups != NULL && groups->fsdp != NULL) {
            pipeline->shards = dk_shards_create(groups->fsdp);
            dk_weights_shard(c.weights, pipeline->shards, "blocks.");
        }
        status = dk_wan_dit_create(&pipeline->transformer, &config, c.weights, c.path, err);
    }
    release(&c);
    return status;
}

static dk_status open_vae(dk_pipeline *pipeline, const dk_model_folder *folder,
                          dk_device *device, dk_error *err)
{
    static const char *const classes[] = {"AutoencoderKLWan", NULL};
    component c;
    dk_wan_vae_config config;
    dk_status status = open_component(&c, folder, DK_COMPONENT_VAE, device, classes, err);
    if (status == DK_OK) {
        status = dk_wan_vae_config_parse(&config, c.config, c.where, err);
    }
    if (status == DK_OK) {
        note_files(pipeline, c.weights);
        status = dk_wan_vae_create(&pipeline->vae, &config, c.weights, device,
                                   DK_WAN_VAE_DECODER, c.path, err);
        pipeline->projection = dk_alloc(sizeof *pipeline->projection);
        pipeline->encoder = dk_alloc(sizeof *pipeline->encoder);
        *pipeline->encoder = (dk_image_encoder){.weights = dk_weights_ref(c.weights),
                                                .where = dk_strdup(c.path)};
    }
    release(&c);
    return status;
}

static dk_status check_widths(const dk_pipeline *pipeline, const char *path, dk_error *err)
{
    const dk_wan_dit_config *dit = dk_wan_dit_get_config(pipeline->transformer);
    int64_t text = dk_t5_encoder_config(pipeline->text_encoder)->d_model;
    int64_t channels = dk_wan_vae_get_config(pipeline->vae)->z_dim;
    if (text != dit->text_dim || channels != dit->in_channels) {
        return dk_fail(err, DK_MISMATCH,
                       "%s: the transformer takes text of width %lld and %lld latent channels, "
                       "but the text encoder gives %lld and the VAE %lld",
                       path, (long long)dit->text_dim, (long long)dit->in_channels,
                       (long long)text, (long long)channels);
    }
    return DK_OK;
}

/* The published models were made for 832 x 480 and 81 frames. A transformer much narrower than
   theirs is a miniature, made for small clips. */
static dk_request defaults_of(const dk_pipeline *pipeline)
{
    enum { MINIATURE_WIDTH = 512 };
    const dk_wan_dit_config *dit = dk_wan_dit_get_config(pipeline->transformer);
    bool miniature = dit->heads * dit->head_dim <= MINIATURE_WIDTH;
    return (dk_request){
        .prompt = "",
        .negative_prompt = "",
        .width = miniature ? 128 : 832,
        .height = miniature ? 128 : 480,
        .num_frames = miniature ? 17 : 81,
        .num_inference_steps = miniature ? 20 : 50,
        .guidance_scale = miniature ? 4.0 : 5.0,
        .flow_shift = NAN,
        .seed = 0,
        .noise = "torch-cpu",
        .num_outputs_per_prompt = 1,
        .fps = 16,
        .strength = 0.8,
    };
}

static dk_status check_cancel(const atomic_bool *cancel, dk_error *err)
{
    bool stop = cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed);
    return stop ? dk_fail(err, DK_CANCELLED, "stopped on request while the model was opened")
                : DK_OK;
}

/* Of sharded weights; the CPU's quantised ones are plain bytes, which can be shared out too. */
static dk_status check_quantization(const dk_device *device, const dk_pipeline_options *options,
                                    dk_error *err)
{
    bool sharded = options->groups != NULL && options->groups->fsdp != NULL;
    if (!sharded || device->ops->window == NULL ||
        options->quantization == DK_QUANTIZATION_NONE) {
        return DK_OK;
    }
    return dk_fail(err, DK_INVALID,
                   "use_fsdp_inference with quantization '%s' on %s, accepted are quantization "
                   "none, int8 with device cpu, or no use_fsdp_inference",
                   dk_quantization_name(options->quantization), device->description);
}

static dk_status quantize(dk_pipeline *pipeline, dk_device *device,
                          const dk_pipeline_options *options, dk_error *err)
{
    if (options->quantization == DK_QUANTIZATION_NONE) {
        return DK_OK;
    }
    double usual = dk_quantization_max_error(options->quantization);
    const dk_nn_quantizer quantizer = {
        .kind = options->quantization,
        .device = device,
        .cancel = options->cancel,
        .log = options->log,
        .shards = pipeline->shards,
        .max_error = isnan(options->max_error) ? usual : options->max_error};
    DK_TRY(dk_wan_dit_quantize(pipeline->transformer, &quantizer, err));
    pipeline->quantization = dk_nn_quantized_text(dk_wan_dit_quantized(pipeline->transformer));
    dk_log_info(options->log, "%s", pipeline->quantization);
    return DK_OK;
}

static dk_status seal(dk_shards *shards, const dk_log *log, dk_error *err)
{
    DK_TRY(dk_shards_seal(shards, err));
    const dk_shards_size size = dk_shards_get_size(shards);
    dk_log_info(log,
                "transformer: %d layers of %.1f MB are shared out among %d ranks; this one "
                "keeps %.1f MB, and at work has %.1f MB",
                size.layers, (double)size.whole * 1e-6, size.ranks, (double)size.kept * 1e-6,
                (double)size.most * 1e-6);
    return DK_OK;
}

dk_status dk_pipeline_open(dk_pipeline **out, const dk_model_folder *folder, dk_device *device,
                           const dk_pipeline_options *options, dk_error *err)
{
    const atomic_bool *cancel = options->cancel;
    DK_TRY(check_index(folder, err));
    dk_pipeline *pipeline = dk_alloc(sizeof *pipeline);
    pipeline->class_name = "WanPipeline";
    dk_status status =
        dk_model_folder_config(folder, "scheduler", "scheduler_config.json",
                               &pipeline->scheduler_config, &pipeline->scheduler_where, err);
    if (status == DK_OK) {
        dk_device *text = options->text_device != NULL ? options->text_device : device;
        status = open_text_encoder(
            pipeline, folder, text,
            text == device && options->groups != NULL ? options->groups->replica : NULL, err);
    }
    if (status == DK_OK) {
        status = check_cancel(cancel, err);
    }
    if (status == DK_OK) {
        status = open_transformer(pipeline, folder, device, options->groups, err);
    }
    if (status == DK_OK) {
        status = check_quantization(device, options, err);
    }
    if (status == DK_OK) {
        status = quantize(pipeline, device, options, err);
    }
    if (status == DK_OK && pipeline->shards != NULL) {
        status = seal(pipeline->shards, options->log, err);
    }
    if (status == DK_OK) {
        status = check_cancel(cancel, err);
    }
    if (status == DK_OK) {
        status = open_vae(pipeline, folder, device, err);
    }
    if (status == DK_OK) {
        status = check_cancel(cancel, err);
    }
    if (status == DK_OK) {
        status = check_widths(pipeline, dk_model_folder_path(folder), err);
    }
    if (status != DK_OK) {
        dk_pipeline_close(&pipeline);
        return status;
    }
    pipeline->defaults = defaults_of(pipeline);
    dk_log_debug(options->log, "%s: %s opened", dk_model_folder_path(folder),
                 pipeline->class_name);
    *out = pipeline;
    return DK_OK;
}

static void release_encoder(dk_image_encoder *encoder)
{
    if (encoder != NULL) {
        dk_wan_vae_destroy(&encoder->vae);
        dk_weights_unref(encoder->weights);
        dk_free(encoder->where);
        dk_free(encoder);
    }
}

void dk_pipeline_close(dk_pipeline **pipeline)
{
    if (*pipeline != NULL) {
        dk_pipeline *p = *pipeline;
        dk_tokenizer_close(&p->tokenizer);
        dk_t5_encoder_destroy(&p->text_encoder);
        dk_wan_dit_destroy(&p->transformer);
        dk_shards_settle(p->shards);
        dk_shards_destroy(&p->shards);
        dk_wan_vae_destroy(&p->vae);
        release_encoder(p->encoder);
        dk_free(p->projection);
        json_decref(p->scheduler_config);
        dk_free(p->scheduler_where);
        dk_free(p->quantization);
        for (size_t i = 0; p->weight_files != NULL && p->weight_files[i] != NULL; i++) {
            dk_free(p->weight_files[i]);
        }
        dk_free(p->weight_files);
        dk_free(p);
        *pipeline = NULL;
    }
}
