/* darkroom plan: which layouts are worth trying for a model on so many devices, by the cost
   model of src/scaling. Plans of single requests are another thing: POST /v1/plan. */
#include "cli/plan_report.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "base/string.h"
#include "cli/arguments.h"
#include "cli/folder.h"
#include "cli/models.h"
#include "cli/report.h"

typedef struct plan_options {
    const char *model_path, *model, *device_preset, *measured, *goal, *dtype;
    int num_gpus, nodes, width, height, num_frames, num_inference_steps, passes;
    int dp_size, tp_size, ulysses_degree, ring_degree, layouts;
    double tflops, attention_tflops, memory_gb, link_gbps, link_latency_us, net_gbps,
        net_latency_us, step_seconds;
    bool use_fsdp_inference, dit_layerwise_offload, text_encoder_cpu_offload, no_overlap, json;
} plan_options;

#define AT(field) .name = #field, .offset = offsetof(plan_options, field)
#define COUNT(field, least, most, usual, text)                                                 \
    {                                                                                          \
        AT(field), .type = DK_PARAMETER_INT, .min = least, .max = most, .default_text = usual, \
                   .help = text                                                                \
    }
#define REAL(field, text)                                                                      \
    {                                                                                          \
        AT(field), .type = DK_PARAMETER_REAL, .min = 1e-6, .max = 1e9,                         \
                   .default_text = "the preset's", .help = text                                \
    }
#define SWITCH(field, text)                                                                    \
    {                                                                                          \
        AT(field), .type = DK_PARAMETER_BOOL, .default_text = "false", .help = text            \
    }

static const dk_parameter model_parameters[] = {
    {AT(model_path), .type = DK_PARAMETER_TEXT, .max = 4096, .unit = "FOLDER|NAME",
     .default_text = "none",
     .help = "model folder, or a name that the cache has: its config.json files are read"},
    {AT(model), .type = DK_PARAMETER_CHOICE,
     .choices = "wan2.1-1.3b, wan2.1-14b, wan2.1-i2v-14b, wan2.2-5b, wan2.2-a14b, flux1-dev, "
                "flux1-schnell, flux2-klein-4b, flux2-klein-9b, qwen-image, z-image, "
                "hunyuan-video",
     .default_text = "none", .help = "a published model instead, by its shape"},
    COUNT(width, 0, 16384, "the model's", "pixels"),
    COUNT(height, 0, 16384, "the model's", "pixels"),
    COUNT(num_frames, 0, 4096, "the model's", "frames"),
    COUNT(num_inference_steps, 0, 1000, "the model's", "steps of a generation"),
    COUNT(passes, 0, 2, "the model's", "forward passes per step: 2 with guidance, 1 without"),
    {AT(dtype), .type = DK_PARAMETER_CHOICE, .choices = "bf16, f32", .default_text = "bf16",
     .help = "arithmetic: bytes of weights and of what is exchanged"},
};

static const dk_parameter machine_parameters[] = {
    COUNT(num_gpus, 1, 4096, "1", "devices, one rank each"),
    COUNT(nodes, 0, 4096, "as many as needed", "hosts, with equal numbers of devices"),
    {AT(device_preset), .type = DK_PARAMETER_CHOICE,
     .choices = "b60, b580, b70, max1550, h100, h800, a100, l20, 4090, cpu",
     .default_text = "b60", .help = "device and links; the flags below replace single values"},
    REAL(tflops, "TFLOP/s that a device sustains in linear layers; without --attention-tflops "
                 "in attention, too"),
    REAL(attention_tflops, "TFLOP/s that it sustains in attention"),
    {AT(step_seconds), .type = DK_PARAMETER_REAL, .min = 1e-9, .max = 1e9,
     .default_text = "none",
     .help = "seconds that one device takes for a step of this size: gives both of these"},
    REAL(memory_gb, "memory of a device in gigabytes"),
    REAL(link_gbps,
         "gigabytes (not bits) per second and direction that a rank sends to ranks of "
         "its host while all do"),
    REAL(link_latency_us, "microseconds that a collective call costs, whatever its size"),
    REAL(net_gbps,
         "gigabytes per second and direction between hosts, all ranks of one together"),
    REAL(net_latency_us, "microseconds of a call between hosts"),
    {AT(measured), .type = DK_PARAMETER_TEXT, .max = 4096, .unit = "FILE",
     .default_text = "none",
     .help = "report of comm-test --json: gives link bandwidth and latency"},
};

static const dk_parameter search_parameters[] = {
    {AT(goal), .type = DK_PARAMETER_CHOICE, .choices = "latency, throughput",
     .default_text = "latency",
     .help =
         "order: seconds per step with one replica, or steps per second of all replicas; in "
         "classes 2 % wide, which the model cannot tell apart: in one, what sends less comes "
         "first"},
    COUNT(dp_size, 0, 4096, "1; any for throughput", "only layouts with so many replicas"),
    COUNT(tp_size, 0, 64, "any", "only layouts with this degree"),
    COUNT(ulysses_degree, 0, 64, "any", "only layouts with this degree"),
    COUNT(ring_degree, 0, 64, "any", "only layouts with this degree"),
    SWITCH(use_fsdp_inference,
           "weights sharded over the replica in every layout, of those whose ranks "
           "have the same ones (sp, cfg); else where they do not fit "
           "otherwise"),
    SWITCH(dit_layerwise_offload, "the transformer's weights come from the host in every pass"),
    SWITCH(text_encoder_cpu_offload, "text encoders take no memory of the device"),
    SWITCH(no_overlap, "calls wait, but for a ring's bytes and weights: what a transport that "
                       "blocks gives"),
    COUNT(layouts, 1, 1000, "8", "how many are shown"),
    SWITCH(json, "print one JSON object, a failure too"),
};

#define TABLE(name, of)                                                                        \
    {                                                                                          \
        .title = name, .parameters = of, .count = sizeof of / sizeof *of                       \
    }
static const dk_parameter_table model_table = TABLE("Model", model_parameters);
static const dk_parameter_table machine_table = TABLE("Devices and links", machine_parameters);
static const dk_parameter_table search_table = TABLE("Layouts", search_parameters);

/* Bytes of the weight files below `folder` of the components that begin with `prefix`. */
static dk_status weight_bytes(double *out, const char *folder, const char *prefix,
                              dk_error *err)
{
    dk_file_list files;
    DK_TRY(dk_list_files(&files, folder, err));
    *out = 0;
    for (int i = 0; i < files.count; i++) {
        if (dk_starts_with(files.paths[i], prefix) &&
            dk_ends_with(files.paths[i], ".safetensors")) {
            *out += (double)files.sizes[i];
        }
    }
    dk_file_list_release(&files);
    return DK_OK;
}

/* What the weight files tell better than the family: text encoders and autoencoder. */
static dk_status weigh(dk_model_shape *shape, const char *folder, int element, dk_error *err)
{
    double text = 0, vae = 0;
    DK_TRY(weight_bytes(&text, folder, "text_encoder", err));
    DK_TRY(weight_bytes(&vae, folder, "vae", err));
    shape->text_weights = text > 0 ? text / element : shape->text_weights;
    shape->vae_weights = vae > 0 ? vae / element : shape->vae_weights;
    return DK_OK;
}

/* *transformer (owned) keeps the shape's name alive. */
static dk_status read_folder(dk_model_shape *out, json_t **transformer, const char *folder,
                             int element, dk_error *err)
{
    json_t *vae = NULL;
    char *path = dk_path_join(folder, "transformer/config.json");
    char *vae_path = dk_path_join(folder, "vae/config.json");
    dk_status status = dk_json_load(transformer, path, DK_JSON_CONFIG_BYTES, err);
    if (status == DK_OK && dk_path_exists(vae_path)) {
        status = dk_json_load(&vae, vae_path, DK_JSON_CONFIG_BYTES, err);
    }
    if (status == DK_OK) {
        status = dk_model_shape_read(out, *transformer, vae, path, err);
    }
    if (status == DK_OK) {
        status = weigh(out, folder, element, err);
    }
    json_decref(vae);
    dk_free(vae_path);
    dk_free(path);
    return status;
}

/* Nothing is fetched: a name must be in the cache. */
static dk_status find_shape(dk_model_shape *out, json_t **transformer, const plan_options *o,
                            dk_error *err)
{
    if ((o->model != NULL) == (o->model_path != NULL)) {
        return dk_fail(err, DK_INVALID,
                       "%s: accepted is one of --model-path FOLDER and --model NAME",
                       o->model != NULL ? "--model and --model-path" : "no model");
    }
    if (o->model != NULL) {
        const dk_model_shape *preset = dk_model_preset_find(o->model);
        if (preset == NULL) {
            return dk_fail(err, DK_INTERNAL, "--model %s has no shape", o->model);
        }
        *out = *preset;
        return DK_OK;
    }
    dk_engine_setup setup;
    dk_progress progress;
    char *folder = NULL;
    dk_engine_setup_init(&setup);
    setup.options.offline = true;
    dk_progress_init(&progress, setup.options.log_level);
    dk_status status = dk_engine_setup_folder(&folder, &setup, o->model_path, &progress, err);
    dk_progress_end(&progress);
    if (status == DK_OK) {
        bool exact = o->dtype != NULL && strcmp(o->dtype, "f32") == 0;
        status = read_folder(out, transformer, folder, exact ? 4 : 2, err);
    }
    dk_free(folder);
    dk_engine_setup_release(&setup);
    return status;
}

static void replace(double *value, double given)
{
    if (!isnan(given)) {
        *value = given;
    }
}

static dk_status find_machine(dk_machine *out, const plan_options *o,
                              const dk_geometry *geometry, dk_error *err)
{
    const char *name = o->device_preset != NULL ? o->device_preset : "b60";
    const dk_machine *preset = dk_machine_preset_find(name);
    if (preset == NULL) {
        return dk_fail(err, DK_INTERNAL, "--device-preset %s has no values", name);
    }
    *out = *preset;
    if (o->measured != NULL) {
        json_t *report = NULL;
        DK_TRY(dk_json_load(&report, o->measured, DK_JSON_CONFIG_BYTES, err));
        dk_status status = dk_machine_measured(out, report, o->measured, err);
        json_decref(report);
        DK_TRY(status);
    }
    replace(&out->memory_gb, o->memory_gb);
    replace(&out->link_gbps, o->link_gbps);
    replace(&out->call_us, o->link_latency_us);
    replace(&out->net_gbps, o->net_gbps);
    replace(&out->net_call_us, o->net_latency_us);
    if (!isnan(o->step_seconds)) {
        DK_TRY(dk_machine_calibrate(out, geometry, o->step_seconds, err));
    }
    replace(&out->linear_tflops, o->tflops);
    replace(&out->attention_tflops, o->tflops);
    replace(&out->attention_tflops, o->attention_tflops);
    return DK_OK;
}

static dk_cost_options cost_options(const plan_options *o, int per_host)
{
    dk_cost_options options = dk_cost_options_usual();
    bool exact = o->dtype != NULL && strcmp(o->dtype, "f32") == 0;
    options.traffic.activation_bytes = exact ? 4 : 2;
    options.traffic.weight_bytes = exact ? 4 : 2;
    options.traffic.sharded = o->use_fsdp_inference;
    options.streamed = o->dit_layerwise_offload;
    options.text_elsewhere = o->text_encoder_cpu_offload;
    if (o->no_overlap) {
        options.pipelined = false;
        options.traffic.head_groups = 1;
    }
    options.ranks_per_host = per_host;
    return options;
}

/* Hosts and ranks on each. */
static dk_status spread(int *hosts, int *per_host, const plan_options *o,
                        const dk_machine *machine, dk_error *err)
{
    int usual = machine->ranks_per_host;
    *hosts = o->nodes > 0 ? o->nodes : (o->num_gpus + usual - 1) / usual;
    if (o->nodes > 0 && o->num_gpus % o->nodes != 0) {
        return dk_fail(err, DK_INVALID,
                       "--num-gpus %d on --nodes %d, accepted are multiples of the nodes",
                       o->num_gpus, o->nodes);
    }
    *per_host = o->nodes > 0 ? o->num_gpus / o->nodes : usual;
    return DK_OK;
}

/* Takes out what was not asked for, in place. */
static int keep_asked(dk_candidate *list, int count, const plan_options *o)
{
    int kept = 0;
    for (int i = 0; i < count; i++) {
        const dk_layout *l = &list[i].layout;
        if ((o->tp_size == 0 || o->tp_size == l->tp) &&
            (o->ulysses_degree == 0 || o->ulysses_degree == l->ulysses) &&
            (o->ring_degree == 0 || o->ring_degree == l->ring)) {
            list[kept++] = list[i];
        }
    }
    return kept;
}

static dk_status report(const plan_options *o, const dk_geometry *geometry,
                        const dk_machine *machine, dk_error *err)
{
    int hosts = 0, per_host = 0, count = 0;
    bool throughput = o->goal != NULL && strcmp(o->goal, "throughput") == 0;
    dk_candidate *list = NULL;
    DK_TRY(spread(&hosts, &per_host, o, machine, err));
    const dk_cost_options options = cost_options(o, per_host);
    const dk_search search = {.ranks = o->num_gpus,
                              .dp = o->dp_size > 0 || throughput ? o->dp_size : 1,
                              .may_shard = true,
                              .by_throughput = throughput};
    DK_TRY(dk_search_layouts(&list, &count, &search, geometry, machine, &options, err));
    count = keep_asked(list, count, o);
    dk_status status = DK_OK;
    if (count == 0) {
        status =
            dk_fail(err, DK_INVALID,
                    "no layout of %d devices has --tp-size %d --ulysses-degree %d "
                    "--ring-degree %d (0: any)%s; leave one out to see the others",
                    o->num_gpus, o->tp_size, o->ulysses_degree, o->ring_degree,
                    o->use_fsdp_inference
                        ? " --use-fsdp-inference, which takes ranks with the same weights: "
                          "an sp_degree from 2, or cfg"
                        : "");
    } else {
        int steps = o->num_inference_steps > 0 ? o->num_inference_steps : geometry->shape.steps;
        const dk_layout_report plan = {geometry,   machine,     &options, list, count,
                                       o->layouts, o->num_gpus, hosts,    steps};
        if (o->json) {
            json_t *object = dk_layout_report_json(&plan);
            dk_report_print(object);
            json_decref(object);
        } else {
            dk_layout_report_print(&plan);
        }
    }
    dk_free(list);
    return status;
}

static dk_status run(const dk_arguments *arguments, dk_error *err)
{
    plan_options o = {.num_gpus = 1,
                      .layouts = 8,
                      .tflops = NAN,
                      .attention_tflops = NAN,
                      .memory_gb = NAN,
                      .link_gbps = NAN,
                      .link_latency_us = NAN,
                      .net_gbps = NAN,
                      .net_latency_us = NAN,
                      .step_seconds = NAN};
    static const dk_parameter_table *const tables[] = {&model_table, &machine_table,
                                                       &search_table};
    json_t *transformer = NULL;
    dk_model_shape shape;
    dk_geometry geometry;
    dk_machine machine;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        DK_TRY(dk_arguments_apply(arguments, tables[i], &o, err));
    }
    dk_status status = find_shape(&shape, &transformer, &o, err);
    if (status == DK_OK) {
        status =
            dk_geometry_init(&geometry, &shape, o.width, o.height, o.num_frames, o.passes, err);
    }
    if (status == DK_OK) {
        status = find_machine(&machine, &o, &geometry, err);
    }
    if (status == DK_OK) {
        status = report(&o, &geometry, &machine, err);
    }
    json_decref(transformer);
    return status;
}

static const dk_flag_group groups[] = {
    {&model_table, NULL},
    {&machine_table, NULL},
    {&search_table, NULL},
    {0},
};

const dk_command dk_command_plan = {
    .name = "plan",
    .usage = "--model NAME|--model-path FOLDER --num-gpus N [flags]",
    .summary = "Shows which layouts of several devices suit a model, and what each would cost.",
    .text = "By a model of costs that docs/parallel.md explains and compares with published "
            "figures: a projection, nothing is run. What a single request takes on one device "
            "is told by POST /v1/plan.",
    .examples =
        "  darkroom plan --model wan2.1-14b --num-gpus 8\n"
        "  darkroom plan --model flux1-dev --num-gpus 4 --device-preset h100\n"
        "  darkroom plan --model-path models/tiny-wan --num-gpus 2 --device-preset cpu\n"
        "  darkroom plan --model wan2.1-1.3b --num-gpus 4 --measured links.json --json\n",
    .groups = groups,
    .run = run,
};
