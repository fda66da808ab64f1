/* darkroom bench serve: a server under load, as its clients see it. */
#include "cli/bench_serve.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/report.h"

enum {
    PROMPTS = 100,        /* without --num-prompts and --duration-s */
    UNLOADED_REQUESTS = 5 /* per size, behind one that warms up, for --slo-scale */
};

typedef struct serve_flags {
    const char *base_url, *sizes, *api_key, *prompt, *output_file;
    double request_rate, duration_s, slo_s, slo_scale, timeout_s;
    int max_concurrency, num_prompts, num_inference_steps, num_outputs_per_prompt;
    uint64_t seed;
} serve_flags;

#define AT(field) .offset = offsetof(serve_flags, field)
#define TEXT(word, what, usual, line)                                                          \
    {                                                                                          \
        .name = #word, .type = DK_PARAMETER_TEXT, AT(word), .max = 4096, .unit = what,         \
        .default_text = usual, .help = line                                                    \
    }
#define REAL(word, most, what, usual, line)                                                    \
    {                                                                                          \
        .name = #word, .type = DK_PARAMETER_REAL, AT(word), .max = most, .unit = what,         \
        .default_text = usual, .help = line                                                    \
    }
#define WHOLE(word, most, usual, line)                                                         \
    {                                                                                          \
        .name = #word, .type = DK_PARAMETER_INT, AT(word), .max = most, .default_text = usual, \
        .help = line                                                                           \
    }

static const dk_parameter parameters[] = {
    TEXT(base_url, "URL", "http://127.0.0.1:30000", "the server"),
    TEXT(api_key, "KEY", "none", "key that the server wants"),
    REAL(request_rate, 1e5, "N", "0: a request follows a reply",
         "requests per second, at random times (Poisson), whatever the server does"),
    WHOLE(max_concurrency, 65536, "1; with request_rate: no limit",
          "requests in flight at most"),
    WHOLE(num_prompts, 1 << 24, "100; with duration_s: no limit", "requests to send"),
    REAL(duration_s, 1e6, "S", "0: no limit", "no request is begun later than this"),
    TEXT(sizes, "LIST", "128x128x1",
         "WIDTHxHEIGHTxFRAMES:WEIGHT, by commas; several frames are a video"),
    TEXT(prompt, "TEXT", "each request has another", "the prompt of every request"),
    WHOLE(num_inference_steps, 1000, "the server's", "steps of each request"),
    WHOLE(num_outputs_per_prompt, 10, "1", "outputs of each request"),
    {.name = "seed",
     .type = DK_PARAMETER_SEED,
     AT(seed),
     .default_text = "0",
     .help = "of arrivals, sizes and pictures"},
    REAL(slo_s, 1e6, "S", "none", "latency that requests should keep"),
    REAL(slo_scale, 1e6, "X", "none",
         "the same as a multiple of the size's median on the idle server, which is measured "
         "first"),
    REAL(timeout_s, 1e6, "S", "600", "a request that takes longer has failed"),
    TEXT(output_file, "FILE", "none", "report and single requests, as JSON"),
};

const dk_parameter_table dk_bench_serve_parameters = {
    .title = "serve: how to load the server",
    .parameters = parameters,
    .count = sizeof parameters / sizeof *parameters,
};

/* "WIDTHxHEIGHT[xFRAMES][:WEIGHT]" */
static bool parse_size(dk_load_size *out, const char *text)
{
    char *end;
    int used = 0;
    *out = (dk_load_size){.frames = 1, .weight = 1};
    if (sscanf(text, "%5dx%5d%n", &out->width, &out->height, &used) != 2) {
        return false;
    }
    text += used;
    if (*text == 'x') {
        out->frames = (int)strtol(text + 1, &end, 10);
        if (end == text + 1) {
            return false;
        }
        text = end;
    }
    if (*text == ':') {
        out->weight = strtod(text + 1, &end);
        if (end == text + 1) {
            return false;
        }
        text = end;
    }
    return *text == '\0' && out->width > 0 && out->height > 0 && out->frames > 0 &&
           out->frames <= 4097 && out->weight > 0 && isfinite(out->weight);
}

static dk_status parse_sizes(dk_load_size *out, int *count, const char *text, dk_error *err)
{
    char *copy = dk_strdup(text), *rest = copy;
    dk_status status = DK_OK;
    *count = 0;
    for (char *entry; status == DK_OK && (entry = strsep(&rest, ",")) != NULL;) {
        if (*count == DK_LOAD_MAX_SIZES) {
            status =
                dk_fail(err, DK_INVALID, "--sizes lists more than %d sizes", DK_LOAD_MAX_SIZES);
        } else if (!parse_size(&out[(*count)++], entry)) {
            status = dk_fail(err, DK_INVALID,
                             "--sizes has '%.60s', accepted is "
                             "WIDTHxHEIGHT[xFRAMES][:WEIGHT], such as 128x128x1:3",
                             entry);
        }
    }
    dk_free(copy);
    return status;
}

static dk_status check(const serve_flags *flags, dk_error *err)
{
    if (strncmp(flags->base_url, "http://", 7) != 0 &&
        strncmp(flags->base_url, "https://", 8) != 0) {
        return dk_fail(err, DK_INVALID, "--base-url is '%.200s', accepted is http(s)://HOST",
                       flags->base_url);
    }
    for (const char *c = flags->api_key; c != NULL && *c != '\0'; c++) {
        if (*c <= ' ' || *c > '~') {
            return dk_fail(err, DK_INVALID, "--api-key holds a character that no key has");
        }
    }
    if (flags->slo_s > 0 && flags->slo_scale > 0) {
        return dk_fail(err, DK_INVALID, "--slo-s and --slo-scale do not go together");
    }
    return DK_OK;
}

static void fill_options(dk_load_options *out, const serve_flags *flags)
{
    bool endless = flags->num_prompts == 0 && flags->duration_s > 0,
         closed = flags->request_rate <= 0;
    out->base_url = flags->base_url;
    out->api_key = flags->api_key;
    out->prompt = flags->prompt;
    out->rate = flags->request_rate;
    out->concurrency = flags->max_concurrency == 0 && closed ? 1 : flags->max_concurrency;
    out->requests = flags->num_prompts == 0 && !endless ? PROMPTS : flags->num_prompts;
    out->duration_s = flags->duration_s;
    out->steps = flags->num_inference_steps;
    out->outputs = flags->num_outputs_per_prompt > 0 ? flags->num_outputs_per_prompt : 1;
    out->seed = flags->seed;
    out->timeout_s = flags->timeout_s;
}

/* The median latency of requests of one size, one at a time, behind one that warms up. A
   failure ends the bench: there is no server, or it does not take such requests. */
static dk_status measure_unloaded(double *seconds, const dk_load_options *options, int size,
                                  int requests, dk_error *err)
{
    dk_load load;
    double latency[UNLOADED_REQUESTS];
    dk_load_options one = *options;
    one.sizes = &options->sizes[size];
    one.size_count = 1;
    one.rate = one.duration_s = 0;
    one.concurrency = 1;
    one.requests = 1 + requests;
    one.seed = options->seed + 0x80000000u; /* other pictures than the load's */
    DK_TRY(dk_load_run(&load, &one, err));
    dk_status status =
        load.interrupted ? dk_fail(err, DK_CANCELLED, "stopped on request") : DK_OK;
    for (int i = 0; i < load.count && status == DK_OK; i++) {
        if (load.results[i].problem != NULL) {
            status = dk_fail(err, DK_NETWORK, "%.200s: a request of %dx%dx%d alone failed: %s",
                             options->base_url, one.sizes->width, one.sizes->height,
                             one.sizes->frames, load.first_failure);
        } else if (i > 0) {
            latency[i - 1] = load.results[i].ended_ms - load.results[i].sent_ms;
        }
    }
    if (status == DK_OK) {
        *seconds = dk_bench_quantile(latency, requests, 0.5) / 1e3;
    }
    dk_load_release(&load);
    return status;
}

static dk_status find_slo(double *slo_s, const dk_load_options *options,
                          const serve_flags *flags, dk_error *err)
{
    bool scaled = flags->slo_scale > 0;
    for (int i = 0; i < options->size_count; i++) {
        double median_s;
        DK_TRY(measure_unloaded(&median_s, options, i, scaled ? UNLOADED_REQUESTS : 0, err));
        slo_s[i] = scaled ? flags->slo_scale * median_s : flags->slo_s;
    }
    return DK_OK;
}

static dk_status save(const char *path, const json_t *report, const dk_load *load,
                      const dk_load_options *options, dk_error *err)
{
    json_t *all = json_copy((json_t *)(uintptr_t)report);
    json_object_set_new(all, "single_requests", dk_bench_serve_requests(load, options));
    char *text = json_dumps(all, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    dk_status status = dk_file_write(path, text, strlen(text), err);
    free(text); /* jansson's */
    json_decref(all);
    return status;
}

static dk_status report(const dk_load *load, const dk_load_options *options,
                        const double *slo_s, const char *file, bool json, dk_error *err)
{
    json_t *facts = dk_bench_serve_report(load, options, slo_s);
    if (json) {
        dk_report_print(facts);
    } else {
        dk_bench_serve_print(facts);
    }
    dk_status status = file != NULL ? save(file, facts, load, options, err) : DK_OK;
    bool all_failed =
        json_integer_value(json_object_get(facts, "completed")) == 0 && load->count > 0;
    json_decref(facts);
    DK_TRY(status);
    if (load->interrupted) {
        return dk_fail(err, DK_CANCELLED, "stopped on request");
    }
    return all_failed
               ? dk_fail(err, DK_NETWORK, "every request failed: %s", load->first_failure)
               : DK_OK;
}

dk_status dk_bench_serve(const dk_arguments *arguments, bool json, dk_error *err)
{
    dk_load load;
    dk_load_size sizes[DK_LOAD_MAX_SIZES];
    dk_load_options options = {.sizes = sizes};
    double slo_s[DK_LOAD_MAX_SIZES] = {0};
    serve_flags flags = {
        .base_url = "http://127.0.0.1:30000", .sizes = "128x128x1", .timeout_s = 600};
    DK_TRY(dk_arguments_apply(arguments, &dk_bench_serve_parameters, &flags, err));
    DK_TRY(check(&flags, err));
    DK_TRY(parse_sizes(sizes, &options.size_count, flags.sizes, err));
    fill_options(&options, &flags);
    DK_TRY(find_slo(slo_s, &options, &flags, err));
    DK_TRY(dk_load_run(&load, &options, err));
    dk_status status = report(&load, &options, slo_s, flags.output_file, json, err);
    dk_load_release(&load);
    return status;
}
