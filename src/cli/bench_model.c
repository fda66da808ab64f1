/* Bench of one part of a model: a configuration's shapes with random weights made in memory. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/bench.h"
#include "cli/bench_ranks.h"
#include "engine/rank_parameters.h"
#include "models/t5/encoder.h"
#include "models/wan/dit.h"
#include "models/wan/vae.h"

enum { MOST_TOKENS = 4096, FIRST_TIMED = 1 /* pass, after one to warm up */ };

/* What a device has done so far. */
typedef struct device_counts {
    dk_device_work work[DK_OP_COUNT];
    dk_device_traffic moved;
    dk_comm_work calls[DK_COMM_OP_COUNT]; /* of the world of ranks; zeros of one rank alone */
    uint64_t enqueued;
    double host_ms; /* processor time of the thread that enqueues, waits aside */
} device_counts;

/* One part under test. Only the fields of that part are set. */
typedef struct model_bench {
    const dk_bench_flags *flags;
    int64_t width, height, frames; /* pixels */
    int tokens;
    dk_nn nn;
    dk_weights *weights;
    dk_wan_dit *dit;
    dk_wan_vae *vae;
    dk_t5_encoder *encoder;
    dk_wan_dit_text text;
    dk_wan_dit_grid grid;
    dk_tensor in, out;
    int64_t latent[3]; /* frames, height, width */
    int32_t ids[MOST_TOKENS];
    int passes;           /* so far */
    double host_ms;       /* of passes so far, without their last wait */
    device_counts before; /* the first timed pass */
    dk_bench_ranks ranks;
} model_bench;

static dk_status load_config(json_t **out, char **where, const model_bench *b,
                             const char *component, dk_error *err)
{
    char *folder = dk_path_join(b->flags->config, component);
    *where = dk_path_join(folder, "config.json");
    dk_free(folder);
    return dk_json_load(out, *where, DK_JSON_CONFIG_BYTES, err);
}

static dk_status open_dit(model_bench *b, const json_t *json, const char *where, dk_error *err)
{
    dk_wan_dit_config config;
    DK_TRY(dk_wan_dit_config_parse(&config, json, where, err));
    DK_TRY(dk_wan_dit_create(&b->dit, &config, b->weights, where, err));
    dk_quantization kind;
    DK_TRY(dk_quantization_from_name(&kind, b->flags->quantization, err));
    if (kind == DK_QUANTIZATION_NONE) {
        return DK_OK;
    }
    const dk_nn_quantizer quantizer = {.device = b->nn.device, .kind = kind, .max_error = 1};
    return dk_wan_dit_quantize(b->dit, &quantizer, err);
}

static dk_status open_vae(model_bench *b, const json_t *json, const char *where, dk_error *err)
{
    dk_wan_vae_config config;
    DK_TRY(dk_wan_vae_config_parse(&config, json, where, err));
    unsigned part =
        strcmp(b->flags->part, "vae") == 0 ? DK_WAN_VAE_DECODER : DK_WAN_VAE_ENCODER;
    return dk_wan_vae_create(&b->vae, &config, b->weights, b->nn.device, part, where, err);
}

static dk_status open_text(model_bench *b, const json_t *json, const char *where, dk_error *err)
{
    dk_t5_config config;
    DK_TRY(dk_t5_config_parse(&config, json, where, err));
    for (int i = 0; i < b->tokens; i++) {
        b->ids[i] = (int32_t)(i * 37 % config.vocab_size);
    }
    return dk_t5_encoder_create(&b->encoder, &config, b->weights, where, err);
}

/* What a generation computes once, before the passes that are timed. */
static dk_status prepare_dit(model_bench *b, dk_error *err)
{
    dk_nn *nn = &b->nn;
    const dk_wan_dit_config *c = dk_wan_dit_get_config(b->dit);
    int64_t pixels = b->latent[0] * b->latent[1] * b->latent[2];
    b->in = dk_nn_keep(nn, DK_F32, c->in_channels, pixels);
    b->out = dk_nn_keep(nn, DK_F32, c->out_channels, pixels);
    dk_device_zero(nn->device, b->in.data, dk_tensor_bytes(&b->in));
    DK_TRY(dk_wan_dit_grid_init(nn, b->dit, &b->grid, b->latent[0], b->latent[1], b->latent[2],
                                err));
    size_t mark = dk_nn_mark(nn);
    dk_tensor embeds = dk_nn_temp(nn, DK_F32, b->tokens, c->text_dim);
    dk_device_zero(nn->device, embeds.data, dk_tensor_bytes(&embeds));
    dk_wan_dit_text_release(&b->text);
    dk_status status = dk_wan_dit_text_init(nn, b->dit, &b->text, &embeds, 0, err);
    dk_nn_unwind(nn, mark);
    return status;
}

static dk_status prepare(model_bench *b, dk_error *err)
{
    dk_nn *nn = &b->nn;
    if (b->dit != NULL) {
        return prepare_dit(b, err);
    }
    if (b->vae != NULL) {
        const dk_wan_vae_config *c = dk_wan_vae_get_config(b->vae);
        int64_t latent = b->latent[0] * b->latent[1] * b->latent[2];
        bool decodes = strcmp(b->flags->part, "vae") == 0;
        b->in = decodes
                    ? dk_nn_keep(nn, DK_F32, c->z_dim, latent)
                    : dk_nn_keep(nn, DK_F32, c->in_channels, b->frames * b->width * b->height);
        b->out = dk_nn_keep(nn, DK_F32, 2 * c->z_dim, decodes ? 1 : latent);
        dk_device_zero(nn->device, b->in.data, dk_tensor_bytes(&b->in));
        return DK_OK;
    }
    b->out = dk_nn_keep(nn, DK_F32, b->tokens, dk_t5_encoder_config(b->encoder)->d_model);
    return DK_OK;
}

static dk_status drop_frames(void *context, int64_t first_frame, int64_t count,
                             const dk_tensor *sample, dk_error *err)
{
    (void)context;
    (void)first_frame;
    (void)count;
    (void)sample;
    (void)err;
    return DK_OK;
}

/* What a device has done up to some pass. */
static void take(device_counts *out, const model_bench *b)
{
    const dk_device *device = b->nn.device;
    memcpy(out->work, device->work, sizeof out->work);
    out->moved = device->traffic;
    if (b->ranks.ranks != NULL) {
        dk_comm_get_work(b->ranks.ranks->world, out->calls);
    }
    out->enqueued = device->enqueued;
    out->host_ms = b->host_ms - device->waited_ms;
}

static dk_status forward(void *context, dk_error *err)
{
    model_bench *b = context;
    dk_nn *nn = &b->nn;
    double started_ms = dk_thread_ms();
    if (b->passes++ == FIRST_TIMED) {
        take(&b->before, b);
    }
    size_t keep = nn->keep.used, mark = dk_nn_mark(nn);
    dk_status status = DK_OK;
    if (b->dit != NULL) {
        status = dk_wan_dit_forward(nn, b->dit, &b->grid, &b->text, &b->out, &b->in, 500, err);
    } else if (b->vae != NULL && strcmp(b->flags->part, "vae") == 0) {
        status = dk_wan_vae_decode(nn, b->vae, &b->in, b->latent[0], b->latent[1], b->latent[2],
                                   drop_frames, b, err);
    } else if (b->vae != NULL) {
        status =
            dk_wan_vae_encode(nn, b->vae, &b->out, &b->in, b->frames, b->height, b->width, err);
    } else {
        status = dk_t5_encoder_forward(nn, b->encoder, &b->out, b->ids, b->tokens, err);
    }
    nn->keep.used = keep;
    dk_nn_unwind(nn, mark);
    b->host_ms += dk_thread_ms() - started_ms;
    return status != DK_OK ? status : dk_device_sync(nn->device, err);
}

/* A line on standard input asks for a pass. All ranks hear of it. */
static dk_status take_turn(void *context, bool *more, dk_error *err)
{
    model_bench *b = context;
    uint64_t asked = 0;
    for (int c = 0; dk_nn_leads(&b->nn) && c != EOF && asked == 0;) {
        c = getchar();
        asked = c == '\n';
    }
    DK_TRY(dk_nn_call_roll(&b->nn, &asked, err));
    *more = asked != 0;
    return DK_OK;
}

static dk_status open_part(model_bench *b, dk_error *err)
{
    static const struct {
        const char *part, *component;
        dk_status (*open)(model_bench *b, const json_t *json, const char *where, dk_error *err);
    } parts[] = {
        {"dit", "transformer", open_dit},
        {"vae", "vae", open_vae},
        {"vae-encode", "vae", open_vae},
        {"text", "text_encoder", open_text},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (strcmp(b->flags->part, parts[i].part) == 0) {
            json_t *json = NULL;
            char *where = NULL;
            dk_status status = load_config(&json, &where, b, parts[i].component, err);
            if (status == DK_OK) {
                status = parts[i].open(b, json, where, err);
            }
            json_decref(json);
            dk_free(where);
            return status;
        }
    }
    return dk_fail(err, DK_INVALID, "--part is '%s', accepted are dit, vae, vae-encode, text",
                   b->flags->part);
}

/* What the timed passes spent in each kind of operation: seconds of one pass and GFLOP/s. */
static json_t *operations(const dk_device_work *now, const dk_device_work *before, int passes)
{
    json_t *out = json_object();
    for (int i = 0; i < DK_OP_COUNT; i++) {
        double seconds = now[i].seconds - before[i].seconds;
        double gflop = (now[i].flops - before[i].flops) * 1e-9;
        if (now[i].calls > before[i].calls) {
            json_t *op = json_pack("{s:I, s:f}", "calls",
                                   (json_int_t)(now[i].calls - before[i].calls) / passes,
                                   "seconds", seconds / passes);
            if (gflop > 0) {
                json_object_set_new(op, "gflops", json_real(gflop / seconds));
            }
            json_object_set_new(out, dk_device_op_names[i], op);
        }
    }
    return out;
}

/* Of one pass. */
static json_t *traffic(const dk_device_traffic *now, const dk_device_traffic *before,
                       int passes)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f}", "copies",
                     (double)(now->copies - before->copies) / passes, "late",
                     (double)(now->late - before->late) / passes, "mb",
                     (now->bytes - before->bytes) * 1e-6 / passes, "seconds",
                     (now->seconds - before->seconds) / passes, "stalled_seconds",
                     (now->stalled - before->stalled) / passes);
}

/* Of one pass. */
static json_t *communication(const dk_comm_work *now, const dk_comm_work *before, int passes)
{
    json_t *out = json_object();
    for (int i = 0; i < DK_COMM_OP_COUNT; i++) {
        uint64_t calls = now[i].calls - before[i].calls;
        if (calls > 0) {
            json_object_set_new(
                out, dk_comm_op_names[i],
                json_pack("{s:f, s:f, s:f, s:f}", "calls", (double)calls / passes, "mb",
                          (now[i].bytes - before[i].bytes) * 1e-6 / passes, "seconds",
                          (now[i].seconds - before[i].seconds) / passes, "waited",
                          (now[i].waited - before[i].waited) / passes));
        }
    }
    return out;
}

static void tell_ranks(json_t *facts, const model_bench *b, const device_counts *now,
                       int passes)
{
    const dk_ranks *ranks = b->ranks.ranks;
    if (ranks == NULL) {
        return;
    }
    const dk_layout *l = &ranks->groups.layout;
    json_object_set_new(facts, "ranks",
                        json_pack("{s:s, s:i, s:i, s:i, s:i}", "backend",
                                  dk_comm_backend(ranks->world), "cfg", l->cfg, "ulysses",
                                  l->ulysses, "ring", l->ring, "tp", l->tp));
    json_object_set_new(facts, "communication",
                        communication(now->calls, b->before.calls, passes));
}

static dk_status measure(model_bench *b, dk_error *err)
{
    dk_nn *nn = &b->nn;
    dk_nn_dry_begin(nn);
    dk_status status = prepare(b, err);
    double before = dk_device_flops(nn->device);
    if (status == DK_OK) {
        status = forward(b, err);
    }
    double flops = dk_device_flops(nn->device) - before;
    dk_status ended = dk_nn_dry_end(nn, status == DK_OK ? err : NULL);
    DK_TRY(status != DK_OK ? status : ended);
    DK_TRY(prepare(b, err));
    dk_bench_times times;
    b->passes = 0;
    const dk_bench_loop loop = {.pass = forward,
                                .context = b,
                                .repeats = b->flags->repeats,
                                .turn = b->flags->turns ? take_turn : NULL,
                                .tells = b->flags->turns && dk_nn_leads(nn)};
    DK_TRY(dk_bench_time(&times, &loop, err));
    json_t *facts = json_pack("{s:s, s:s, s:s}", "bench", "model", "part", b->flags->part,
                              "config", b->flags->config);
    if (b->encoder != NULL) {
        json_object_set_new(facts, "tokens", json_integer(b->tokens));
    } else {
        json_object_set_new(facts, "width", json_integer(b->width));
        json_object_set_new(facts, "height", json_integer(b->height));
        json_object_set_new(facts, "num_frames", json_integer(b->frames));
    }
    if (b->flags->quantization != NULL) {
        json_object_set_new(facts, "quantization", json_string(b->flags->quantization));
    }
    device_counts now;
    take(&now, b);
    json_object_set_new(facts, "operations",
                        operations(now.work, b->before.work, times.repeats));
    if (now.enqueued > b->before.enqueued) {
        double enqueued = (double)(now.enqueued - b->before.enqueued);
        double host_ms = now.host_ms - b->before.host_ms;
        json_object_set_new(facts, "enqueued", json_real(enqueued / times.repeats));
        json_object_set_new(facts, "host_us_per_enqueued", json_real(host_ms * 1e3 / enqueued));
    }
    if (now.moved.copies > 0) {
        json_object_set_new(facts, "offload",
                            traffic(&now.moved, &b->before.moved, times.repeats));
    }
    double activations_mb = (double)(nn->temp.size + nn->keep.size) / (1024.0 * 1024.0);
    json_object_set_new(facts, "activations_mb", json_real(activations_mb));
    if (dk_nn_leads(nn)) {
        tell_ranks(facts, b, &now, times.repeats);
        dk_bench_report(facts, nn->device, &times, flops, false, b->flags->json != 0);
    } else {
        json_decref(facts);
    }
    return DK_OK;
}

static dk_status check(const model_bench *b, dk_error *err)
{
    if (b->flags->config == NULL) {
        return dk_fail(err, DK_INVALID, "--config is missing, see darkroom bench --help");
    }
    if (b->tokens > MOST_TOKENS) {
        return dk_fail(err, DK_INVALID, "--tokens is %d, accepted are 1 to %d", b->tokens,
                       MOST_TOKENS);
    }
    const char *quantization = b->flags->quantization;
    bool fewer = quantization != NULL && strcmp(quantization, "none") != 0;
    bool exact = b->flags->dtype != NULL && strcmp(b->flags->dtype, "f32") == 0;
    if (fewer && (exact || strcmp(b->flags->part, "dit") != 0)) {
        return dk_fail(err, DK_INVALID,
                       "--quantization %s is for --part dit with --dtype bf16, here part is %s "
                       "and dtype %s",
                       quantization, b->flags->part, exact ? "f32" : "bf16");
    }
    if (b->width % 16 != 0 || b->height % 16 != 0 || b->frames % 4 != 1) {
        return dk_fail(err, DK_INVALID,
                       "%lld x %lld pixels and %lld frames, accepted are sides that are "
                       "multiples of 16 and 1, 5, 9, … frames",
                       (long long)b->width, (long long)b->height, (long long)b->frames);
    }
    return DK_OK;
}

static dk_component component_of(const char *part)
{
    if (strcmp(part, "text") == 0) {
        return DK_COMPONENT_TEXT_ENCODER;
    }
    return strcmp(part, "dit") == 0 ? DK_COMPONENT_TRANSFORMER : DK_COMPONENT_VAE;
}

static dk_status check_dit(const model_bench *b, const json_t *json, const dk_layout *layout,
                           const char *where, dk_error *err)
{
    dk_wan_dit_config config;
    DK_TRY(dk_wan_dit_config_parse(&config, json, where, err));
    DK_TRY(dk_wan_dit_check_layout(&config, layout, where, err));
    int64_t tokens = 1;
    for (int i = 0; i < 3; i++) {
        tokens *= b->latent[i] / config.patch[i];
    }
    return tokens >= dk_layout_sp(layout)
               ? DK_OK
               : dk_fail(
                     err, DK_INVALID,
                     "%lld x %lld pixels and %lld frames are %lld tokens, fewer than the "
                     "%d ranks that share a sequence (sp_degree), accepted are larger sizes",
                     (long long)b->width, (long long)b->height, (long long)b->frames,
                     (long long)tokens, dk_layout_sp(layout));
}

static dk_status check_text(const json_t *json, const dk_layout *layout, const char *where,
                            dk_error *err)
{
    dk_t5_config config;
    int ranks = dk_layout_replica_ranks(layout);
    DK_TRY(dk_t5_config_parse(&config, json, where, err));
    return config.num_heads >= ranks
               ? DK_OK
               : dk_fail(err, DK_INVALID,
                         "%s: %d ranks, but the text encoder has %lld heads to share out, "
                         "accepted are 1 to %lld",
                         where, ranks, (long long)config.num_heads,
                         (long long)config.num_heads);
}

/* Whether every rank gets a head, and a part of the sequence. */
static dk_status check_layout(const void *context, const dk_layout *layout, dk_error *err)
{
    const model_bench *b = context;
    json_t *json = NULL;
    char *where = NULL;
    bool dit = strcmp(b->flags->part, "dit") == 0;
    if (dk_layout_replica_ranks(layout) == 1 || (!dit && strcmp(b->flags->part, "text") != 0)) {
        return DK_OK;
    }
    dk_status status = load_config(&json, &where, b, dit ? "transformer" : "text_encoder", err);
    if (status == DK_OK) {
        status =
            dit ? check_dit(b, json, layout, where, err) : check_text(json, layout, where, err);
    }
    json_decref(json);
    dk_free(where);
    return status;
}

/* All ranks make the same number of passes. */
static dk_status open_ranks(model_bench *b, dk_bench_flags *flags, dk_error *err)
{
    enum { REPEATS = 3 };
    dk_engine_options options;
    dk_engine_options_init(&options);
    DK_TRY(dk_arguments_apply(flags->arguments, &dk_rank_parameters, &options, err));
    options.trace_path = flags->trace_path;
    options.device = flags->device;
    DK_TRY(dk_bench_ranks_open(&b->ranks, &options, check_layout, b, err));
    flags->device = options.device; /* each rank has its own */
    flags->trace = b->ranks.trace;
    if (flags->repeats == 0 && b->ranks.ranks != NULL && !flags->turns) {
        flags->repeats = REPEATS;
    }
    return DK_OK;
}

dk_status dk_bench_model(const dk_bench_flags *given, dk_error *err)
{
    dk_bench_flags flags = *given;
    flags.part = flags.part != NULL ? flags.part : "dit";
    model_bench *b = dk_alloc(sizeof *b);
    b->flags = &flags;
    b->width = flags.width > 0 ? flags.width : 480;
    b->height = flags.height > 0 ? flags.height : 320;
    b->frames = flags.num_frames > 0 ? flags.num_frames : 9;
    b->tokens = flags.tokens > 0 ? flags.tokens : 512;
    b->latent[0] = (b->frames - 1) / 4 + 1;
    b->latent[1] = b->height / 8;
    b->latent[2] = b->width / 8;
    dk_device *device = NULL;
    dk_dtype stored = DK_BF16;
    dk_status status = check(b, err);
    if (status == DK_OK) {
        status = dk_bench_weights_type(&stored, &flags, err);
    }
    if (status == DK_OK && stored == DK_I8) {
        status = dk_fail(err, DK_INVALID,
                         "--weights-dtype is 'i8', accepted for a model are bf16, f16, f32");
    }
    if (status == DK_OK) {
        status = open_ranks(b, &flags, err);
    }
    if (status == DK_OK) {
        status = dk_bench_open_device(&device, &flags, err);
    }
    if (status == DK_OK) {
        b->weights = dk_weights_create_random(stored, 1);
        dk_weights_attach(b->weights, device, component_of(flags.part));
        dk_nn_init(&b->nn, device, device->exact ? DK_F32 : DK_BF16, NULL);
        if (b->ranks.ranks != NULL) {
            b->nn.parallel = &b->ranks.ranks->parallel;
            dk_weights_split(b->weights, strcmp(flags.part, "text") == 0
                                             ? b->ranks.ranks->groups.replica
                                             : b->ranks.ranks->groups.tp);
        }
        status = open_part(b, err);
    }
    if (status == DK_OK) {
        status = measure(b, err);
    }
    dk_wan_dit_text_release(&b->text);
    dk_wan_dit_destroy(&b->dit);
    dk_wan_vae_destroy(&b->vae);
    dk_t5_encoder_destroy(&b->encoder);
    dk_weights_unref(b->weights);
    dk_nn_release(&b->nn);
    if (device != NULL) {
        dk_device_close(&device);
    }
    dk_bench_ranks_close(&b->ranks);
    dk_free(b);
    return status;
}
