/* The load generator: one thread, libcurl's multi interface. */
#include "cli/bench_load.h"

#include <curl/curl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/string.h"
#include "cli/interrupt.h"

enum {
    LOOK_MS = 100,          /* a signal is noticed within */
    REPLY_BYTES = 64 << 10, /* of a reply are kept */
    KEPT_CONNECTIONS = 16384,
};

typedef struct transfer {
    CURL *curl;
    int result; /* index; -1: idle */
    char *body; /* owned: what is sent */
    dk_string reply;
} transfer;

typedef struct generator {
    dk_load *load;
    const dk_load_options *options;
    CURLM *multi;
    struct curl_slist *headers;
    char *picture_url, *video_url; /* owned */
    transfer **transfers;          /* [transfer_count], owned */
    int transfer_count, in_flight, capacity;
    uint64_t gap_state, size_state;
    double start_ms, next_ms, weight_sum;
} generator;

/* Splitmix64 (Steele, Lea, Flood 2014): a number in [0, 1). */
static double draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static double elapsed_ms(const generator *g)
{
    return dk_now_ms() - g->start_ms;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *context)
{
    transfer *t = context;
    size_t room = REPLY_BYTES - t->reply.length, length = size * count;
    dk_string_append(&t->reply, bytes, length < room ? length : room);
    return length;
}

static char *make_body(const generator *g, int number, const dk_load_size *size)
{
    static const char *const colours[] = {"red", "white", "yellow", "purple"};
    static const char *const shapes[] = {"star", "circle", "ring", "heart"};
    const dk_load_options *o = g->options;
    dk_string prompt = DK_STRING_EMPTY;
    if (o->prompt != NULL) {
        dk_string_puts(&prompt, o->prompt);
    } else {
        dk_string_printf(&prompt, "a %s %s, number %d", colours[number % 4],
                         shapes[number / 4 % 4], number);
    }
    json_int_t seed = (json_int_t)((o->seed + (uint64_t)number) & UINT32_MAX);
    json_t *body =
        json_pack("{s:s, s:i, s:i, s:I, s:i}", "prompt", prompt.data, "width", size->width,
                  "height", size->height, "seed", seed, "n", o->outputs);
    if (size->frames > 1) {
        json_object_set_new(body, "num_frames", json_integer(size->frames));
    } else {
        json_object_set_new(body, "response_format", json_string("url"));
    }
    if (o->steps > 0) {
        json_object_set_new(body, "num_inference_steps", json_integer(o->steps));
    }
    char *dumped = json_dumps(body, JSON_COMPACT), *text = dk_strdup(dumped);
    free(dumped); /* jansson's */
    json_decref(body);
    dk_string_release(&prompt);
    return text;
}

static transfer *take_transfer(generator *g)
{
    for (int i = 0; i < g->transfer_count; i++) {
        if (g->transfers[i]->result < 0) {
            return g->transfers[i];
        }
    }
    CURL *curl = curl_easy_init();
    if (curl == NULL) {
        return NULL;
    }
    transfer *t = dk_alloc(sizeof *t);
    *t = (transfer){.curl = curl, .result = -1};
    size_t count = (size_t)g->transfer_count + 1;
    g->transfers = dk_realloc(g->transfers, count * sizeof *g->transfers);
    g->transfers[g->transfer_count++] = t;
    return t;
}

static int draw_size(generator *g)
{
    double at = draw(&g->size_state) * g->weight_sum;
    int size = 0;
    while (size < g->options->size_count - 1 && at >= g->options->sizes[size].weight) {
        at -= g->options->sizes[size++].weight;
    }
    return size;
}

static dk_load_result *add_result(generator *g, double arrival_ms)
{
    dk_load *load = g->load;
    if (load->count == g->capacity) {
        g->capacity = g->capacity > 0 ? 2 * g->capacity : 256;
        load->results = dk_realloc(load->results, (size_t)g->capacity * sizeof *load->results);
    }
    dk_load_result *result = &load->results[load->count++];
    *result = (dk_load_result){
        .size = draw_size(g), .arrival_ms = arrival_ms, .queue_ms = NAN, .engine_ms = NAN};
    return result;
}

/* No proxy: it is the server that is measured. */
static void set_up(const generator *g, transfer *t, const char *url)
{
    curl_easy_setopt(t->curl, CURLOPT_URL, url);
    curl_easy_setopt(t->curl, CURLOPT_USERAGENT, "darkroom/" DK_VERSION);
    curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, g->headers);
    curl_easy_setopt(t->curl, CURLOPT_POSTFIELDS, t->body);
    curl_easy_setopt(t->curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(t->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(t->curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(t->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->curl, CURLOPT_TIMEOUT_MS, (long)(g->options->timeout_s * 1e3));
    curl_easy_setopt(t->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(t->curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->curl, CURLOPT_PRIVATE, t);
}

static dk_status send_one(generator *g, double arrival_ms, dk_error *err)
{
    transfer *t = take_transfer(g);
    if (t == NULL) {
        return dk_fail(err, DK_INTERNAL, "libcurl has no memory for another request");
    }
    dk_load_result *result = add_result(g, arrival_ms);
    const dk_load_size *size = &g->options->sizes[result->size];
    t->result = g->load->count - 1;
    t->body = make_body(g, t->result, size);
    set_up(g, t, size->frames > 1 ? g->video_url : g->picture_url);
    result->sent_ms = elapsed_ms(g);
    if (curl_multi_add_handle(g->multi, t->curl) != CURLM_OK) {
        return dk_fail(err, DK_INTERNAL, "libcurl does not take another request");
    }
    g->in_flight++;
    return DK_OK;
}

static double header_number(CURL *curl, const char *name)
{
    struct curl_header *header;
    if (curl_easy_header(curl, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK) {
        return NAN;
    }
    char *end;
    double value = strtod(header->value, &end);
    return end != header->value && value >= 0 ? value : NAN;
}

/* A video's reply is the job, which may have failed, and tells the engine's time. */
static void read_job(const transfer *t, dk_load_result *result)
{
    json_t *job = NULL, *output;
    size_t i;
    double engine_ms = 0;
    if (dk_json_parse(&job, dk_string_text(&t->reply), t->reply.length, "", NULL) != DK_OK) {
        result->problem = "the reply is no JSON";
        return;
    }
    const char *status = json_string_value(json_object_get(job, "status"));
    if (status == NULL || strcmp(status, "completed") != 0) {
        result->problem = "the job failed";
    }
    json_array_foreach(json_object_get(job, "outputs"), i, output)
    {
        engine_ms += json_number_value(json_object_get(output, "engine_ms"));
    }
    result->engine_ms = engine_ms;
    json_decref(job);
}

static void note_failure(generator *g, const transfer *t, const dk_load_result *result)
{
    json_t *reply = NULL;
    char *said = g->load->first_failure;
    const char *message = NULL;
    if (said[0] != '\0') {
        return;
    }
    if (dk_json_parse(&reply, dk_string_text(&t->reply), t->reply.length, "", NULL) == DK_OK) {
        message =
            json_string_value(json_object_get(json_object_get(reply, "error"), "message"));
    }
    if (result->http_status > 0) {
        snprintf(said, sizeof g->load->first_failure, "HTTP %d: %s", result->http_status,
                 message != NULL ? message : result->problem);
    } else {
        snprintf(said, sizeof g->load->first_failure, "%s", result->problem);
    }
    json_decref(reply);
}

static void release_transfer(generator *g, transfer *t)
{
    curl_multi_remove_handle(g->multi, t->curl);
    dk_free(t->body);
    t->body = NULL;
    dk_string_clear(&t->reply);
    t->result = -1;
    g->in_flight--;
}

static void end_one(generator *g, transfer *t, CURLcode code)
{
    dk_load_result *result = &g->load->results[t->result];
    long http_status = 0;
    result->ended_ms = elapsed_ms(g);
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &http_status);
    result->http_status = code == CURLE_OK ? (int)http_status : 0;
    if (code != CURLE_OK) {
        result->problem = curl_easy_strerror(code);
    } else if (http_status != 200) {
        result->problem = "refused";
    } else if (g->options->sizes[result->size].frames > 1) {
        read_job(t, result);
    } else {
        result->queue_ms = header_number(t->curl, "Darkroom-Queue-Ms");
        result->engine_ms = header_number(t->curl, "Darkroom-Engine-Ms");
    }
    if (result->problem != NULL) {
        note_failure(g, t, result);
    }
    release_transfer(g, t);
}

static void collect(generator *g)
{
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(g->multi, &left)) != NULL;) {
        if (m->msg == CURLMSG_DONE) {
            char *private = NULL;
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &private);
            end_one(g, (transfer *)(void *)private, m->data.result);
        }
    }
}

/* More requests will arrive. Those that arrived in time are sent even if they were held back.
 */
static bool goes_on(const generator *g)
{
    const dk_load_options *o = g->options;
    double at_ms = o->rate > 0 ? g->next_ms : elapsed_ms(g);
    return (o->requests == 0 || g->load->count < o->requests) &&
           (o->duration_s <= 0 || at_ms < o->duration_s * 1e3) && !dk_interrupted();
}

static bool has_room(const generator *g)
{
    return g->options->concurrency == 0 || g->in_flight < g->options->concurrency;
}

static dk_status send_due(generator *g, dk_error *err)
{
    double rate = g->options->rate;
    while (goes_on(g) && has_room(g)) {
        double now_ms = elapsed_ms(g), arrival_ms = rate > 0 ? g->next_ms : now_ms;
        if (arrival_ms > now_ms) {
            return DK_OK;
        }
        if (rate > 0) {
            g->next_ms -= log(1 - draw(&g->gap_state)) / rate * 1e3;
        }
        DK_TRY(send_one(g, arrival_ms, err));
    }
    return DK_OK;
}

/* Sleeps to the millisecond before the next arrival; the rest of it is spent looking. */
static int sleep_ms(const generator *g)
{
    if (g->options->rate <= 0 || !goes_on(g) || !has_room(g)) {
        return LOOK_MS;
    }
    double left_ms = floor(g->next_ms - elapsed_ms(g));
    return left_ms < 0 ? 0 : left_ms > LOOK_MS ? LOOK_MS : (int)left_ms;
}

static dk_status pump(generator *g, dk_error *err)
{
    int running;
    while (goes_on(g) || (g->in_flight > 0 && !dk_interrupted())) {
        DK_TRY(send_due(g, err));
        if (curl_multi_perform(g->multi, &running) != CURLM_OK) {
            return dk_fail(err, DK_INTERNAL, "libcurl cannot move its transfers");
        }
        int before = g->in_flight;
        collect(g);
        if (g->in_flight == before &&
            curl_multi_poll(g->multi, NULL, 0, sleep_ms(g), NULL) != CURLM_OK) {
            return dk_fail(err, DK_INTERNAL, "libcurl cannot wait for its transfers");
        }
    }
    return DK_OK;
}

/* An open loop has as many connections as requests wait. */
static void raise_files(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static char *make_url(const char *base, const char *path)
{
    dk_string url = DK_STRING_EMPTY;
    size_t length = strlen(base);
    while (length > 0 && base[length - 1] == '/') {
        length--;
    }
    if (length > 3 && strncmp(base + length - 3, "/v1", 3) == 0) {
        length -= 3;
    }
    dk_string_append(&url, base, length);
    dk_string_puts(&url, path);
    return dk_string_take(&url);
}

static dk_status open_generator(generator *g, dk_load *load, const dk_load_options *options,
                                dk_error *err)
{
    *g = (generator){.load = load,
                     .options = options,
                     .gap_state = options->seed,
                     .size_state = ~options->seed,
                     .picture_url = make_url(options->base_url, "/v1/images/generations"),
                     .video_url = make_url(options->base_url, "/v1/videos/generations")};
    for (int i = 0; i < options->size_count; i++) {
        g->weight_sum += options->sizes[i].weight;
    }
    g->headers = curl_slist_append(NULL, "Content-Type: application/json");
    g->headers = curl_slist_append(g->headers, "Expect:"); /* no 100-continue */
    if (options->api_key != NULL) {
        dk_string line = DK_STRING_EMPTY;
        dk_string_printf(&line, "Authorization: Bearer %s", options->api_key);
        g->headers = curl_slist_append(g->headers, line.data);
        dk_string_release(&line);
    }
    g->multi = curl_multi_init();
    if (g->multi == NULL) {
        return dk_fail(err, DK_INTERNAL, "libcurl cannot be started");
    }
    curl_multi_setopt(g->multi, CURLMOPT_MAXCONNECTS, (long)KEPT_CONNECTIONS);
    return DK_OK;
}

/* What is still in flight was stopped by a signal, or by a failure of ours. */
static void close_generator(generator *g)
{
    for (int i = 0; i < g->transfer_count; i++) {
        transfer *t = g->transfers[i];
        if (t->result >= 0) {
            g->load->results[t->result].problem = "stopped on request";
            g->load->results[t->result].ended_ms = elapsed_ms(g);
            release_transfer(g, t);
        }
        curl_easy_cleanup(t->curl);
        dk_string_release(&t->reply);
        dk_free(t);
    }
    curl_multi_cleanup(g->multi);
    curl_slist_free_all(g->headers);
    dk_free(g->transfers);
    dk_free(g->picture_url);
    dk_free(g->video_url);
}

dk_status dk_load_run(dk_load *out, const dk_load_options *options, dk_error *err)
{
    dk_load load = {0};
    generator g;
    dk_interrupt_begin();
    raise_files();
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return dk_fail(err, DK_INTERNAL, "libcurl cannot be started");
    }
    dk_status status = open_generator(&g, &load, options, err);
    g.start_ms = dk_now_ms();
    if (status == DK_OK) {
        status = pump(&g, err);
    }
    load.seconds = elapsed_ms(&g) / 1e3;
    load.interrupted = dk_interrupted();
    close_generator(&g);
    curl_global_cleanup();
    if (status != DK_OK) {
        dk_load_release(&load);
        return status;
    }
    *out = load;
    return DK_OK;
}

void dk_load_release(dk_load *load)
{
    dk_free(load->results);
    *load = (dk_load){0};
}
