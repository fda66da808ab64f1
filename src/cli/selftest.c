/* darkroom selftest: what the machine offers, what is chosen, and whether the embedded model
   makes the reference's picture. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "cli/devices.h"
#include "cli/folder.h"
#include "cli/interrupt.h"
#include "cli/machine.h"
#include "cli/models.h"
#include "cli/report.h"
#include "device/module.h"
#include "engine/option_parameters.h"
#include "engine/recipe.h"
#include "kernels/cpu_flags.h"
#include "pipeline/request_parameters.h"
#include "weights/safetensors.h"

/* f32 against the reference's f32: latents directly; frames against its 8-bit frames, half a
   step of which is rounding. bf16: root mean square. */
static const double FRAME_TOLERANCE = 1e-3, LATENT_TOLERANCE = 5e-4, BF16_FRAME_RMS = 0.02;

typedef struct selftest_options {
    bool json;
} selftest_options;

static const dk_parameter parameters[] = {
    {.name = "json",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(selftest_options, json),
     .default_text = "false",
     .help = "print one JSON object, a failure too"},
};

static const dk_parameter_table table = {
    .title = "Output", .parameters = parameters, .count = 1};

typedef struct selftest {
    selftest_options options;
    dk_engine_setup setup;
    dk_progress progress;
    json_t *report, *checks;
    void *module; /* of the device that is tested, loaded; NULL: the CPU */
    bool failed;
} selftest;

/* What the reference was given, from the file's metadata. */
static dk_status read_case(dk_request *request, const dk_safetensors *golden, const char *path,
                           dk_error *err)
{
    static const char *const names[] = {"prompt",         "seed",       "width",
                                        "height",         "num_frames", "num_inference_steps",
                                        "guidance_scale", "flow_shift"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = dk_safetensors_metadata(golden, names[i]);
        if (value == NULL) {
            return dk_fail(err, DK_FORMAT, "%s: no metadata '%s'", path, names[i]);
        }
        DK_TRY(dk_parameter_set_text(dk_parameter_find(&dk_request_parameters, names[i]),
                                     request, value, names[i], err));
    }
    request->initial_latents = path;
    return DK_OK;
}

static dk_status find_tensor(const dk_tensor **out, const dk_safetensors *file,
                             const char *name, dk_dtype dtype, int64_t count, dk_error *err)
{
    const dk_weight *weight = dk_safetensors_find(file, name);
    if (weight == NULL || weight->tensor.dtype != dtype ||
        dk_tensor_count(&weight->tensor) != count) {
        return dk_fail(err, DK_FORMAT, "the selftest's tensor '%s' is missing or misshapen",
                       name);
    }
    *out = &weight->tensor;
    return DK_OK;
}

typedef struct difference {
    double largest_latent, largest_frame, frame_rms;
} difference;

/* NaN counts as the largest difference of all. */
static double larger(double most, double value)
{
    return isnan(value) || value > most ? (isnan(value) ? INFINITY : value) : most;
}

static dk_status compare(difference *out, const dk_safetensors *golden,
                         const dk_safetensors *made, const dk_request *request, dk_error *err)
{
    const dk_tensor *latents = NULL, *frames = NULL, *new_latents = NULL, *new_frames = NULL;
    char last[32];
    int64_t pixels = (int64_t)request->num_frames * request->height * request->width;
    const dk_weight *stored = dk_safetensors_find(golden, "final_latents");
    int64_t count = stored != NULL ? dk_tensor_count(&stored->tensor) : 0;
    snprintf(last, sizeof last, "latents.%d", request->num_inference_steps - 1);
    DK_TRY(find_tensor(&latents, golden, "final_latents", DK_F32, count, err));
    DK_TRY(find_tensor(&new_latents, made, last, DK_F32, count, err));
    DK_TRY(find_tensor(&frames, golden, "frames", DK_U8, 3 * pixels, err));
    DK_TRY(find_tensor(&new_frames, made, "frames", DK_F32, 3 * pixels, err));
    difference d = {0};
    const float *a = latents->data, *b = new_latents->data, *frame = new_frames->data;
    const unsigned char *bytes = frames->data; /* [3][pixels] against [pixels][3] */
    for (int64_t i = 0; i < count; i++) {
        d.largest_latent = larger(d.largest_latent, fabs((double)a[i] - (double)b[i]));
    }
    for (int64_t i = 0; i < 3 * pixels; i++) {
        double off = fabs((double)frame[i] - bytes[i % 3 * pixels + i / 3] / 255.0);
        d.largest_frame = larger(d.largest_frame, off);
        d.frame_rms += off * off / (double)(3 * pixels);
    }
    d.frame_rms = isnan(d.frame_rms) ? INFINITY : sqrt(d.frame_rms);
    *out = d;
    return DK_OK;
}

static void add_check(selftest *t, const char *dtype, const difference *d, double ms)
{
    bool exact = strcmp(dtype, "f32") == 0;
    bool equal = exact ? d->largest_latent <= LATENT_TOLERANCE &&
                             d->largest_frame <= 0.5 / 255 + FRAME_TOLERANCE
                       : d->frame_rms <= BF16_FRAME_RMS;
    t->failed = t->failed || !equal;
    json_t *check = json_pack("{s:s, s:b}", "dtype", dtype, "passed", equal);
    json_object_set_new(check, "largest_latent_difference",
                        isfinite(d->largest_latent) ? json_real(d->largest_latent)
                                                    : json_null());
    json_object_set_new(check, "largest_frame_difference",
                        isfinite(d->largest_frame) ? json_real(d->largest_frame) : json_null());
    json_object_set_new(check, "frame_rms",
                        isfinite(d->frame_rms) ? json_real(d->frame_rms) : json_null());
    json_object_set_new(check, "ms", json_real(ms));
    json_array_append_new(t->checks, check);
}

/* Generates the golden case in one type and compares. */
static dk_status check_dtype(selftest *t, const char *dtype, const char *golden_path,
                             const dk_safetensors *golden, const char *dump, dk_error *err)
{
    dk_engine *engine = NULL;
    dk_request request;
    dk_result result = {0};
    dk_safetensors *made = NULL;
    difference d = {0};
    double start = dk_now_ms();
    t->setup.options.dtype = dtype;
    DK_TRY(dk_engine_setup_open(&engine, &t->setup, &t->progress, err));
    json_object_set_new(t->report, "device", json_string(dk_engine_device(engine)));
    json_object_set_new(t->report, "level", json_string(dk_engine_cpu_level(engine)));
    dk_request_init(&request, engine);
    request.dump_tensors = dump;
    dk_status status = read_case(&request, golden, golden_path, err);
    if (status == DK_OK) {
        status = dk_generate(engine, &request, NULL, NULL, &result, err);
    }
    if (status == DK_OK) {
        status = dk_safetensors_open(&made, dump, err);
    }
    if (status == DK_OK) {
        status = compare(&d, golden, made, &request, err);
    }
    if (status == DK_OK) {
        add_check(t, dtype, &d, dk_now_ms() - start);
    }
    dk_safetensors_close(&made);
    dk_result_release(&result);
    dk_engine_close(&engine);
    return status;
}

static dk_status check_model(selftest *t, dk_error *err)
{
    const char *place = getenv("TMPDIR");
    char *folder = NULL, *golden_path = NULL, *dump = NULL;
    char *scratch = dk_path_join(place != NULL && place[0] != '\0' ? place : "/tmp",
                                 "darkroom-selftest-XXXXXX");
    dk_safetensors *golden = NULL;
    bool made = false;
    dk_status status = dk_find_embedded_model(&folder, err);
    if (status == DK_OK) {
        golden_path = dk_path_join(folder, "selftest.safetensors");
        status = dk_safetensors_open(&golden, golden_path, err);
    }
    if (status == DK_OK) {
        made = mkdtemp(scratch) != NULL;
        status = made ? DK_OK : dk_fail(err, DK_IO, "%s: cannot be made", scratch);
    }
    if (status == DK_OK) {
        dump = dk_path_join(scratch, "dump.safetensors");
        status = check_dtype(t, "f32", golden_path, golden, dump, err);
    }
    if (status == DK_OK) {
        status = check_dtype(t, "bf16", golden_path, golden, dump, err);
    }
    if (made) {
        dk_remove_tree(scratch);
    }
    dk_safetensors_close(&golden);
    dk_free(dump);
    dk_free(scratch);
    dk_free(golden_path);
    dk_free(folder);
    return status;
}

static void print_object(const char *title, const json_t *object)
{
    const char *key;
    json_t *value;
    printf("%s\n", title);
    json_object_foreach((json_t *)object, key, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY);
        printf("  %-28s %s\n", key, json_is_string(value) ? json_string_value(value) : text);
        free(text);
    }
}

/* What is computed with, before anything is. */
static void print_machine(const selftest *t)
{
    const json_t *module = json_object_get(t->report, "module");
    print_object("machine", json_object_get(t->report, "machine"));
    if (module != NULL) {
        dk_device_report_print(module);
    }
}

static void print_cpu(const selftest *t)
{
    size_t i;
    json_t *entry;
    printf("  %-28s %s (%s)\n", "chosen level",
           json_string_value(json_object_get(t->report, "level")),
           json_string_value(json_object_get(t->report, "level_reason")));
    print_object("kernels", json_object_get(t->report, "kernels"));
    printf("modules\n");
    json_array_foreach(json_object_get(t->report, "modules"), i, entry)
    {
        printf("  %-28s %s (%s)\n", json_string_value(json_object_get(entry, "name")),
               json_is_true(json_object_get(entry, "found")) ? "found" : "not found",
               json_string_value(json_object_get(entry, "use")));
    }
}

static void print(const selftest *t)
{
    size_t i;
    json_t *entry;
    print_machine(t);
    if (t->module == NULL) {
        print_cpu(t);
    }
    printf("embedded model against the reference, on %s\n",
           json_string_value(json_object_get(t->report, "device")));
    json_array_foreach(t->checks, i, entry)
    {
        printf("  %-28s %s: frames differ by up to %.2g, rms %.2g; %.0f ms\n",
               json_string_value(json_object_get(entry, "dtype")),
               json_is_true(json_object_get(entry, "passed")) ? "passed" : "FAILED",
               json_number_value(json_object_get(entry, "largest_frame_difference")),
               json_number_value(json_object_get(entry, "frame_rms")),
               json_number_value(json_object_get(entry, "ms")));
    }
}

/* The module's part, whatever its device can do. */
static dk_status describe_module(selftest *t, const char *kind, dk_error *err)
{
    json_t *module;
    DK_TRY(dk_device_report(&module, &t->module, kind, err));
    json_object_set_new(t->report, "module", module);
    return DK_OK;
}

static dk_status describe_cpu(selftest *t, dk_error *err)
{
    const char *cap = t->setup.options.cpu_level;
    unsigned flags = dk_cpu_flags_detect();
    if (cap != NULL && !dk_cpu_flags_cap(&flags, cap)) {
        return dk_fail(err, DK_INVALID, "--cpu is '%s'", cap);
    }
    json_object_set_new(t->report, "kernels", dk_kernel_report(flags));
    json_object_set_new(t->report, "modules", dk_module_report());
    json_object_set_new(t->report, "level_reason",
                        json_string(cap != NULL ? "the processor's, capped by --cpu"
                                                : "the highest that the processor has"));
    return DK_OK;
}

static dk_status run_tests(selftest *t, dk_error *err)
{
    const char *device = t->setup.options.device;
    json_object_set_new(t->report, "engine", json_string("darkroom " DK_VERSION));
    json_object_set_new(t->report, "machine", dk_machine_report());
    if (device != NULL && (strcmp(device, "xpu") == 0 || strncmp(device, "xpu:", 4) == 0)) {
        DK_TRY(describe_module(t, "xpu", err));
    } else {
        DK_TRY(describe_cpu(t, err));
    }
    json_object_set(t->report, "checks", t->checks);
    DK_TRY(check_model(t, err));
    json_object_set_new(t->report, "passed", json_boolean(!t->failed));
    return DK_OK;
}

static dk_status run(const dk_arguments *arguments, dk_error *err)
{
    selftest t = {.report = json_object(), .checks = json_array()};
    dk_engine_setup_init(&t.setup);
    dk_interrupt_begin();
    dk_status status = dk_arguments_apply(arguments, &table, &t.options, err);
    if (status == DK_OK) {
        status = dk_arguments_apply(arguments, &dk_option_parameters, &t.setup.options, err);
    }
    dk_progress_init(&t.progress, t.setup.options.log_level);
    if (status == DK_OK) {
        status = run_tests(&t, err);
    }
    dk_progress_end(&t.progress);
    if (status == DK_OK && t.options.json) {
        dk_report_print(t.report);
    } else if (status == DK_OK) {
        print(&t);
    } else if (t.module != NULL && !t.options.json) {
        print_machine(&t); /* why the check could not be made */
    }
    if (status == DK_OK && t.failed) {
        status = DK_MISMATCH; /* told by the report */
    }
    json_decref(t.report);
    json_decref(t.checks);
    dk_engine_setup_release(&t.setup);
    dk_device_module_unload(t.module);
    return status;
}

static const char *const option_names[] = {"device", "threads", "cpu", "log_level", NULL};
static const dk_flag_group groups[] = {
    {&table, NULL},
    {&dk_option_parameters, option_names},
    {0},
};

const dk_command dk_command_selftest = {
    .name = "selftest",
    .usage = "[flags]",
    .summary =
        "Shows what this machine offers and compares the built-in model with the reference.",
    .text =
        "Makes one picture in f32 and bf16 from stored first latents and compares it with what "
        "the reference pipeline makes of them. Exits with 12 when they differ. With --device "
        "xpu it "
        "tells what the module for Intel GPUs finds, and computes there.",
    .examples = "  darkroom selftest\n"
                "  darkroom selftest --cpu avx2 --threads 1\n"
                "  darkroom selftest --device xpu\n"
                "  darkroom selftest --json\n",
    .groups = groups,
    .run = run,
};
