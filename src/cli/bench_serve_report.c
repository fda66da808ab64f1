/* What `darkroom bench serve` tells. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/string.h"
#include "cli/bench_serve.h"
#include "cli/report.h"
#include "darkroom/darkroom.h"

/* A time of one request in ms; NAN where it is not known. */
typedef double request_time(const dk_load_result *result);

static double latency_of(const dk_load_result *r)
{
    return r->ended_ms - r->arrival_ms;
}

static double late_of(const dk_load_result *r)
{
    return r->sent_ms - r->arrival_ms;
}

static double queue_of(const dk_load_result *r)
{
    return r->queue_ms;
}

static double engine_of(const dk_load_result *r)
{
    return r->engine_ms;
}

static double overhead_of(const dk_load_result *r)
{
    return r->ended_ms - r->sent_ms - r->queue_ms - r->engine_ms;
}

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

double dk_bench_quantile(double *values, int count, double share)
{
    if (count == 0) {
        return NAN;
    }
    qsort(values, (size_t)count, sizeof *values, by_value);
    int rank = (int)ceil(share * count);
    return values[rank < 1 ? 0 : rank - 1];
}

static double rounded(double value)
{
    return round(value * 1e3) / 1e3;
}

/* Of the requests that were answered as wanted, of one size (-1: of all); null: none. */
static json_t *summary(const dk_load *load, int size, request_time *time)
{
    double *values = dk_alloc(((size_t)load->count + 1) * sizeof *values), sum = 0;
    int count = 0;
    for (int i = 0; i < load->count; i++) {
        const dk_load_result *r = &load->results[i];
        double value = time(r);
        if (r->problem == NULL && (size < 0 || r->size == size) && !isnan(value)) {
            values[count++] = value;
            sum += value;
        }
    }
    json_t *object = json_null();
    if (count > 0) {
        object = json_object();
        json_object_set_new(object, "mean", json_real(rounded(sum / count)));
        json_object_set_new(object, "p50",
                            json_real(rounded(dk_bench_quantile(values, count, 0.5))));
        json_object_set_new(object, "p90",
                            json_real(rounded(dk_bench_quantile(values, count, 0.9))));
        json_object_set_new(object, "p99",
                            json_real(rounded(dk_bench_quantile(values, count, 0.99))));
        json_object_set_new(object, "max", json_real(rounded(values[count - 1])));
    }
    dk_free(values);
    return object;
}

/* {"429": 3, "Timeout was reached": 1} */
static json_t *failures_of(const dk_load *load)
{
    json_t *object = json_object();
    for (int i = 0; i < load->count; i++) {
        const dk_load_result *r = &load->results[i];
        char status[16];
        snprintf(status, sizeof status, "%d", r->http_status);
        if (r->problem != NULL) {
            const char *key =
                r->http_status != 0 && r->http_status != 200 ? status : r->problem;
            json_int_t before = json_integer_value(json_object_get(object, key));
            json_object_set_new(object, key, json_integer(before + 1));
        }
    }
    return object;
}

static int count_completed(const dk_load *load, int size)
{
    int count = 0;
    for (int i = 0; i < load->count; i++) {
        const dk_load_result *r = &load->results[i];
        count += r->problem == NULL && (size < 0 || r->size == size);
    }
    return count;
}

/* The share of all requests, failed ones too, that were answered in time; null: no aim is set.
 */
static json_t *attainment(const dk_load *load, const double *slo_s, int size)
{
    int all = 0, kept = 0;
    for (int i = 0; i < load->count; i++) {
        const dk_load_result *r = &load->results[i];
        if (slo_s[r->size] > 0 && (size < 0 || r->size == size)) {
            all++;
            kept += r->problem == NULL && latency_of(r) <= slo_s[r->size] * 1e3;
        }
    }
    return all > 0 ? json_real((double)kept / all) : json_null();
}

static void name_size(char *out, size_t bytes, const dk_load_size *size)
{
    snprintf(out, bytes, "%dx%dx%d", size->width, size->height, size->frames);
}

static json_t *sizes_of(const dk_load *load, const dk_load_options *options,
                        const double *slo_s)
{
    json_t *sizes = json_array();
    for (int i = 0; i < options->size_count; i++) {
        char name[48];
        int requests = 0;
        for (int k = 0; k < load->count; k++) {
            requests += load->results[k].size == i;
        }
        name_size(name, sizeof name, &options->sizes[i]);
        json_t *size =
            json_pack("{s:s, s:f, s:i, s:i}", "size", name, "weight", options->sizes[i].weight,
                      "requests", requests, "completed", count_completed(load, i));
        json_object_set_new(size, "latency_ms", summary(load, i, latency_of));
        json_object_set_new(size, "engine_ms", summary(load, i, engine_of));
        json_object_set_new(size, "slo_s", slo_s[i] > 0 ? json_real(slo_s[i]) : json_null());
        json_object_set_new(size, "slo_attainment", attainment(load, slo_s, i));
        json_array_append_new(sizes, size);
    }
    return sizes;
}

json_t *dk_bench_serve_report(const dk_load *load, const dk_load_options *options,
                              const double *slo_s)
{
    int completed = count_completed(load, -1);
    double per_s = load->seconds > 0 ? completed / load->seconds : 0;
    json_t *o = json_pack(
        "{s:s, s:s, s:s, s:s, s:f, s:i, s:I, s:i}", "bench", "serve", "engine", dk_version(),
        "base_url", options->base_url, "loop", options->rate > 0 ? "open" : "closed",
        "request_rate", options->rate, "max_concurrency", options->concurrency, "seed",
        (json_int_t)(options->seed & UINT32_MAX), "num_inference_steps", options->steps);
    json_object_set_new(o, "requests", json_integer(load->count));
    json_object_set_new(o, "completed", json_integer(completed));
    json_object_set_new(o, "failed", json_integer(load->count - completed));
    json_object_set_new(o, "failures", failures_of(load));
    json_object_set_new(o, "first_failure",
                        load->first_failure[0] != '\0' ? json_string(load->first_failure)
                                                       : json_null());
    json_object_set_new(o, "seconds", json_real(load->seconds));
    json_object_set_new(o, "requests_per_s", json_real(per_s));
    json_object_set_new(o, "outputs_per_s", json_real(per_s * options->outputs));
    json_object_set_new(o, "latency_ms", summary(load, -1, latency_of));
    json_object_set_new(o, "queue_ms", summary(load, -1, queue_of));
    json_object_set_new(o, "engine_ms", summary(load, -1, engine_of));
    json_object_set_new(o, "overhead_ms", summary(load, -1, overhead_of));
    json_object_set_new(o, "late_ms", summary(load, -1, late_of));
    json_object_set_new(o, "slo_attainment", attainment(load, slo_s, -1));
    json_object_set_new(o, "sizes", sizes_of(load, options, slo_s));
    return o;
}

static json_t *real_or_null(double value)
{
    return isnan(value) ? json_null() : json_real(rounded(value));
}

json_t *dk_bench_serve_requests(const dk_load *load, const dk_load_options *options)
{
    json_t *array = json_array();
    for (int i = 0; i < load->count; i++) {
        const dk_load_result *r = &load->results[i];
        char name[48];
        name_size(name, sizeof name, &options->sizes[r->size]);
        json_t *one = json_pack("{s:s, s:i, s:s?}", "size", name, "http_status", r->http_status,
                                "problem", r->problem);
        json_object_set_new(one, "arrival_ms", real_or_null(r->arrival_ms));
        json_object_set_new(one, "sent_ms", real_or_null(r->sent_ms));
        json_object_set_new(one, "ended_ms", real_or_null(r->ended_ms));
        json_object_set_new(one, "queue_ms", real_or_null(r->queue_ms));
        json_object_set_new(one, "engine_ms", real_or_null(r->engine_ms));
        json_array_append_new(array, one);
    }
    return array;
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void print_times(const char *name, const json_t *times)
{
    if (json_is_object(times)) {
        dk_report_line("%-16s %10.2f %10.2f %10.2f %10.2f %10.2f", name, number(times, "mean"),
                       number(times, "p50"), number(times, "p90"), number(times, "p99"),
                       number(times, "max"));
    } else {
        dk_report_line("%-16s not told by the server", name);
    }
}

static void print_failures(const json_t *report)
{
    const char *key;
    json_t *count;
    json_object_foreach(json_object_get(report, "failures"), key, count)
    {
        dk_report_line("%-16s %lld x %s", "failure", (long long)json_integer_value(count), key);
    }
    const char *said = json_string_value(json_object_get(report, "first_failure"));
    if (said != NULL) {
        dk_report_line("%-16s %s", "first failure", said);
    }
}

static void print_sizes(const json_t *report)
{
    json_t *size;
    size_t i;
    json_array_foreach(json_object_get(report, "sizes"), i, size)
    {
        const char *name = json_string_value(json_object_get(size, "size"));
        const json_t *slo = json_object_get(size, "slo_s");
        print_times(name, json_object_get(size, "latency_ms"));
        if (json_is_real(slo)) {
            dk_report_line("%-16s %.1f %% of %d requests within %.3f s", "",
                           number(size, "slo_attainment") * 100, (int)number(size, "requests"),
                           json_real_value(slo));
        }
    }
}

void dk_bench_serve_print(const json_t *report)
{
    static const char *const times[][2] = {{"latency", "latency_ms"},
                                           {"queue", "queue_ms"},
                                           {"engine", "engine_ms"},
                                           {"overhead", "overhead_ms"},
                                           {"sent late", "late_ms"}};
    dk_report_line("%-16s %d, %d completed, %d failed, in %.2f s", "requests",
                   (int)number(report, "requests"), (int)number(report, "completed"),
                   (int)number(report, "failed"), number(report, "seconds"));
    print_failures(report);
    dk_report_line("%-16s %.3f requests/s, %.3f outputs/s", "throughput",
                   number(report, "requests_per_s"), number(report, "outputs_per_s"));
    dk_report_line("%-16s %10s %10s %10s %10s %10s", "ms", "mean", "p50", "p90", "p99", "max");
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        print_times(times[i][0], json_object_get(report, times[i][1]));
    }
    print_sizes(report);
    if (json_is_real(json_object_get(report, "slo_attainment"))) {
        dk_report_line("%-16s %.1f %% of the requests", "in time",
                       number(report, "slo_attainment") * 100);
    }
}
