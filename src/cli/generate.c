/* darkroom generate: one prompt becomes files. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "cli/commands.h"
#include "darkroom/darkroom.h"

#ifndef DK_DEFAULT_MODEL
#define DK_DEFAULT_MODEL "models/tiny-wan"
#endif

/* Flags in the order of the help text; all but --help take a value. */
#define FLAGS(X)                                                                               \
    X(PROMPT, "prompt", "TEXT", "what to show")                                                \
    X(NEGATIVE_PROMPT, "negative-prompt", "TEXT", "what to avoid")                             \
    X(MODEL_PATH, "model-path", "FOLDER|NAME",                                                 \
      "model folder or hub name (built in: tiny-wan)")                                         \
    X(WIDTH, "width", "PIXELS", "width")                                                       \
    X(HEIGHT, "height", "PIXELS", "height")                                                    \
    X(NUM_FRAMES, "num-frames", "N", "frames; 1 makes a picture")                              \
    X(STEPS, "num-inference-steps", "N", "denoising steps")                                    \
    X(GUIDANCE, "guidance-scale", "X", "how closely to follow the prompt; 1 turns it off")     \
    X(FLOW_SHIFT, "flow-shift", "X", "shift of the noise schedule")                            \
    X(SAMPLER, "sampler", "NAME", "unipc, euler or dpm++")                                     \
    X(SEED, "seed", "N", "seed of the first output; the next ones count up")                   \
    X(NOISE, "noise", "NAME", "torch-cpu or philox")                                           \
    X(OUTPUTS, "num-outputs-per-prompt", "N", "outputs")                                       \
    X(FPS, "fps", "X", "frames per second of videos")                                          \
    X(OUTPUT_PATH, "output-path", "FOLDER", "where files go (outputs)")                        \
    X(OUTPUT_NAME, "output-file-name", "NAME", "file name without extension")                  \
    X(OUTPUT_FORMAT, "output-format", "NAME", "png or mp4")                                    \
    X(QUALITY, "output-quality", "N", "1 to 100")                                              \
    X(DTYPE, "dtype", "NAME", "bf16 (fast) or f32 (for comparisons)")                          \
    X(DEVICE, "device", "NAME", "cpu")                                                         \
    X(CPU, "cpu", "LEVEL", "highest instruction set: c avx2 avx512 avx512bf16 amx")            \
    X(THREADS, "threads", "N", "threads; 0: one per core")                                     \
    X(LATENTS, "initial-latents", "FILE", "first latents from a safetensors file")             \
    X(DUMP, "dump-tensors", "FILE", "write intermediate tensors to a safetensors file")

enum {
    FLAG_FIRST = 999, /* above every character that getopt may return */
#define FLAG_ENUM(id, name, value, help) FLAG_##id,
    FLAGS(FLAG_ENUM)
#undef FLAG_ENUM
        FLAG_HELP
};

/* Values as given; NULL where absent. */
typedef struct arguments {
    const char *value[FLAG_HELP - FLAG_FIRST];
} arguments;

static const char *get(const arguments *a, int flag)
{
    return a->value[flag - FLAG_FIRST];
}

static void help(void)
{
    printf("darkroom generate --prompt TEXT [flags]\n\n");
#define FLAG_HELP_LINE(id, name, value, text) printf("  --%-24s %-12s %s\n", name, value, text);
    FLAGS(FLAG_HELP_LINE)
#undef FLAG_HELP_LINE
    printf("\nSizes, frames, steps and guidance default to what the model was made for.\n");
}

static dk_status parse(arguments *out, bool *wants_help, int argc, char **argv, dk_error *err)
{
    static const struct option options[] = {
#define FLAG_OPTION(id, name, value, help) {name, required_argument, NULL, FLAG_##id},
        FLAGS(FLAG_OPTION)
#undef FLAG_OPTION
            {"help", no_argument, NULL, FLAG_HELP},
        {0}};
    char *shifted[512];
    if (argc > 500) {
        return dk_fail(err, DK_INVALID, "%d arguments, accepted are up to 500", argc);
    }
    shifted[0] = "darkroom";
    memcpy(shifted + 1, argv, (size_t)argc * sizeof *argv);
    shifted[argc + 1] = NULL;
    *out = (arguments){0};
    opterr = 0;
    int flag;
    while ((flag = getopt_long(argc + 1, shifted, ":", options, NULL)) != -1) {
        if (flag == FLAG_HELP) {
            *wants_help = true;
        } else if (flag > FLAG_FIRST && flag < FLAG_HELP) {
            out->value[flag - FLAG_FIRST] = optarg;
        } else {
            return dk_fail(err, DK_INVALID, "%s '%s', see darkroom generate --help",
                           flag == ':' ? "no value for" : "unknown flag", shifted[optind - 1]);
        }
    }
    if (optind <= argc) {
        return dk_fail(err, DK_INVALID,
                       "unexpected argument '%s', a prompt goes behind --prompt",
                       shifted[optind]);
    }
    return DK_OK;
}

static dk_status set_int(int *out, const arguments *a, int flag, const char *name,
                         dk_error *err)
{
    const char *text = get(a, flag);
    char *end;
    if (text == NULL) {
        return DK_OK;
    }
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < INT_MIN || value > INT_MAX) {
        return dk_fail(err, DK_INVALID, "--%s is '%s', accepted is a whole number", name, text);
    }
    *out = (int)value;
    return DK_OK;
}

static dk_status set_real(double *out, const arguments *a, int flag, const char *name,
                          dk_error *err)
{
    const char *text = get(a, flag);
    char *end;
    if (text == NULL) {
        return DK_OK;
    }
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value)) {
        return dk_fail(err, DK_INVALID, "--%s is '%s', accepted is a number", name, text);
    }
    *out = value;
    return DK_OK;
}

static dk_status set_seed(uint64_t *out, const arguments *a, dk_error *err)
{
    const char *text = get(a, FLAG_SEED);
    char *end;
    if (text == NULL) {
        return DK_OK;
    }
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-') {
        return dk_fail(err, DK_INVALID, "--seed is '%s', accepted are 0 to 2^64 - 1", text);
    }
    *out = value;
    return DK_OK;
}

static void set_text(const char **out, const arguments *a, int flag)
{
    if (get(a, flag) != NULL) {
        *out = get(a, flag);
    }
}

static dk_status fill_request(dk_request *r, const arguments *a, dk_error *err)
{
    set_text(&r->prompt, a, FLAG_PROMPT);
    set_text(&r->negative_prompt, a, FLAG_NEGATIVE_PROMPT);
    set_text(&r->sampler, a, FLAG_SAMPLER);
    set_text(&r->noise, a, FLAG_NOISE);
    set_text(&r->initial_latents, a, FLAG_LATENTS);
    set_text(&r->dump_tensors, a, FLAG_DUMP);
    DK_TRY(set_int(&r->width, a, FLAG_WIDTH, "width", err));
    DK_TRY(set_int(&r->height, a, FLAG_HEIGHT, "height", err));
    DK_TRY(set_int(&r->num_frames, a, FLAG_NUM_FRAMES, "num-frames", err));
    DK_TRY(set_int(&r->num_inference_steps, a, FLAG_STEPS, "num-inference-steps", err));
    DK_TRY(set_int(&r->num_outputs_per_prompt, a, FLAG_OUTPUTS, "num-outputs-per-prompt", err));
    DK_TRY(set_real(&r->guidance_scale, a, FLAG_GUIDANCE, "guidance-scale", err));
    DK_TRY(set_real(&r->flow_shift, a, FLAG_FLOW_SHIFT, "flow-shift", err));
    DK_TRY(set_real(&r->fps, a, FLAG_FPS, "fps", err));
    return set_seed(&r->seed, a, err);
}

/* The hub's cache as huggingface_hub finds it: HF_HOME/hub, else ~/.cache/huggingface/hub. */
static char *hub_cache(void)
{
    const char *home = getenv("HF_HOME"), *user = getenv("HOME");
    if (home != NULL) {
        return dk_path_join(home, "hub");
    }
    return dk_path_join(user != NULL ? user : ".", ".cache/huggingface/hub");
}

static dk_status open_engine(dk_engine **engine, const arguments *a, dk_error *err)
{
    dk_engine_options options;
    char *cache = hub_cache();
    const char *offline = getenv("HF_HUB_OFFLINE");
    dk_engine_options_init(&options);
    options.model_path = DK_DEFAULT_MODEL;
    options.hub_cache = cache;
    options.hub_endpoint = getenv("HF_ENDPOINT");
    options.hub_token = getenv("HF_TOKEN");
    options.offline = offline != NULL && strcmp(offline, "0") != 0 && offline[0] != '\0';
    set_text(&options.model_path, a, FLAG_MODEL_PATH);
    set_text(&options.dtype, a, FLAG_DTYPE);
    set_text(&options.device, a, FLAG_DEVICE);
    set_text(&options.cpu_level, a, FLAG_CPU);
    dk_status status = set_int(&options.threads, a, FLAG_THREADS, "threads", err);
    if (status == DK_OK) {
        status = dk_engine_open(engine, &options, err);
    }
    dk_free(cache);
    return status;
}

static dk_engine *volatile interrupted_engine;

static void on_interrupt(int number)
{
    (void)number;
    if (interrupted_engine != NULL) {
        dk_engine_cancel(interrupted_engine);
    }
}

static void report(void *context, const dk_event *event)
{
    const bool *terminal = context;
    if (event->kind == DK_EVENT_WARNING) {
        fprintf(stderr, "darkroom: warning: %s\n", event->message);
    } else if (event->kind == DK_EVENT_STEP) {
        fprintf(stderr, "%sstep %d/%d  %.0f ms  %.1f s left%s", *terminal ? "\r" : "",
                event->step, event->steps, event->ms, event->eta_ms / 1000,
                !*terminal || event->step == event->steps ? "\n" : "   ");
    }
}

static dk_status save(const dk_result *result, const arguments *a, dk_error *err)
{
    const char *folder = get(a, FLAG_OUTPUT_PATH), *name = get(a, FLAG_OUTPUT_NAME);
    const char *format = get(a, FLAG_OUTPUT_FORMAT);
    int quality = 0;
    dk_status status = DK_OK;
    folder = folder != NULL ? folder : "outputs";
    format = format != NULL ? format : result->frames == 1 ? "png" : "mp4";
    DK_TRY(set_int(&quality, a, FLAG_QUALITY, "output-quality", err));
    if (name != NULL && !dk_path_is_inside(name, false)) {
        return dk_fail(err, DK_INVALID, "--output-file-name is '%s', accepted is a plain name",
                       name);
    }
    DK_TRY(dk_make_folders(folder, err));
    for (int i = 0; i < result->outputs && status == DK_OK; i++) {
        dk_string path = DK_STRING_EMPTY;
        if (name != NULL) {
            dk_string_printf(&path, "%s/%s", folder, name);
        } else {
            dk_string_printf(&path, "%s/seed-%llu", folder,
                             (unsigned long long)result->seeds[i]);
        }
        if (name != NULL && result->outputs > 1) {
            dk_string_printf(&path, "-%d", i);
        }
        dk_string_printf(&path, ".%s", format);
        status = dk_result_save(result, i, path.data, quality, err);
        if (status == DK_OK) {
            printf("%s\n", path.data);
        }
        dk_string_release(&path);
    }
    return status;
}

static dk_status generate(const arguments *a, dk_error *err)
{
    dk_engine *engine = NULL;
    dk_request request;
    dk_result result = {0};
    bool terminal = isatty(STDERR_FILENO);
    if (get(a, FLAG_PROMPT) == NULL) {
        return dk_fail(err, DK_INVALID, "--prompt is missing, see darkroom generate --help");
    }
    DK_TRY(open_engine(&engine, a, err));
    dk_request_init(&request, engine);
    interrupted_engine = engine;
    signal(SIGINT, on_interrupt);
    dk_status status = fill_request(&request, a, err);
    if (status == DK_OK) {
        status = dk_generate(engine, &request, report, &terminal, &result, err);
    }
    interrupted_engine = NULL;
    if (status == DK_OK) {
        status = save(&result, a, err);
    }
    dk_result_release(&result);
    dk_engine_close(&engine);
    return status;
}

int dk_cli_generate(int argc, char **argv)
{
    arguments a;
    dk_error err = {0};
    bool wants_help = false;
    dk_status status = parse(&a, &wants_help, argc, argv, &err);
    if (status == DK_OK && wants_help) {
        help();
        return 0;
    }
    if (status == DK_OK) {
        status = generate(&a, &err);
    }
    if (status != DK_OK) {
        fprintf(stderr, "darkroom: %s\n", err.message);
    }
    return dk_status_exit_code(status);
}
