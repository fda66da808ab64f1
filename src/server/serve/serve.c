/* The server process. */
#include "server/serve/serve.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/string.h"
#include "server/api/api.h"
#include "server/serve/keys.h"
#include "server/serve/run_folder.h"

enum {
    LOOK_MS = 50,
    EXPIRE_MS = 60000,
    TIDY_MS = 2000,
    FINISHING_THREADS = 2,
    HANDLER_THREADS = 8,
    IDLE_TIMEOUT_S = 60,
    REQUEST_TIMEOUT_S = 120,
    BODIES = 8, /* of the largest size that are held together */
    MAX_PARTS = 128,
};

typedef struct server {
    const dk_serve_setup *setup;
    dk_serve_keys keys;
    dk_link_keys link_keys;
    char *link_text, *run_folder;
    dk_jobs *jobs;
    dk_service *service;
    dk_api_options api_options;
    dk_api *api;
    dk_http_server *http;
    double expired_ms, tidied_ms;
    bool told_ready;
    dk_log access_log;
} server;

/* What signal handlers need: the wish to end, and to end at once. */
static volatile int ending, hurry;

static void on_signal(int number)
{
    (void)number;
    hurry = ending;
    ending = 1;
}

static void watch_signals(void)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal};
    ending = hurry = 0;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction old;
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            sigaction(numbers[i], &action, NULL);
        }
    }
}

static dk_status open_store(server *s, dk_error *err)
{
    const dk_serve_options *o = s->setup->options;
    const dk_jobs_options options = {.path = s->setup->store_path,
                                     .keep_results_h = o->keep_results_h,
                                     .max_store_gb = o->max_store_gb,
                                     .log = s->setup->log};
    DK_TRY(dk_jobs_open(&s->jobs, &options, err));
    return dk_run_folder_make(&s->run_folder, s->setup->run_folder_base, s->setup->store_path,
                              err);
}

static dk_status start_service(server *s, dk_error *err)
{
    const dk_serve_options *o = s->setup->options;
    bool elsewhere = o->scheduler_endpoint != NULL;
    if (o->curve_keys != NULL) {
        DK_TRY(dk_link_keys_read(&s->link_keys, &s->link_text, o->curve_keys, err));
    }
    if (elsewhere) {
        DK_TRY(dk_link_check(o->scheduler_endpoint, &s->link_keys, err));
    }
    const dk_service_options options = {.jobs = s->jobs,
                                        .run_folder = s->run_folder,
                                        .scheduler_argv =
                                            elsewhere ? NULL : s->setup->scheduler_argv,
                                        .scheduler_endpoint = o->scheduler_endpoint,
                                        .keys = &s->link_keys,
                                        .max_queue = o->max_queue,
                                        .max_memory_gb = o->max_memory_gb,
                                        .finishing_threads = FINISHING_THREADS,
                                        .log = s->setup->log};
    return dk_service_start(&s->service, &options, err);
}

static dk_status start_http(server *s, dk_error *err)
{
    const dk_serve_options *o = s->setup->options;
    dk_http_options http;
    dk_http_options_init(&http);
    http.host = o->host;
    http.port = o->port;
    http.ssl_certfile = o->ssl_certfile;
    http.ssl_keyfile = o->ssl_keyfile;
    http.api_keys = s->keys.keys;
    http.api_key_count = s->keys.count;
    http.cors_origin = o->cors_origin;
    http.max_connections = o->max_connections;
    http.max_body_bytes = (size_t)(o->max_body_mb * 1e6);
    http.max_total_bytes = BODIES * http.max_body_bytes;
    http.max_parts = MAX_PARTS;
    http.idle_timeout_s = IDLE_TIMEOUT_S;
    http.request_timeout_s = REQUEST_TIMEOUT_S;
    http.handler_threads = HANDLER_THREADS;
    http.routes = dk_api_http_routes(s->api, &http.route_count);
    http.context = s->api;
    http.report = dk_api_report;
    http.log = s->setup->log;
    return dk_http_server_start(&s->http, &http, err);
}

static dk_status start(server *s, dk_error *err)
{
    const dk_serve_options *o = s->setup->options;
    DK_TRY(dk_serve_keys_read(&s->keys, o->api_key, o->api_key_file, err));
    DK_TRY(open_store(s, err));
    DK_TRY(start_service(s, err));
    s->api_options = (dk_api_options){.service = s->service,
                                      .served_model_name = o->served_model_name,
                                      .program = "/proc/self/exe",
                                      .run_folder = s->run_folder,
                                      .max_pixels = o->max_pixels,
                                      .allowed_url_hosts = o->allowed_url_hosts,
                                      .layout = *s->setup->layout,
                                      .access_log = o->log_requests ? &s->access_log : NULL,
                                      .http = &s->http,
                                      .with_tls = o->ssl_certfile != NULL,
                                      .with_keys = s->keys.count > 0};
    s->api = dk_api_create(&s->api_options);
    return start_http(s, err);
}

static void tell_listening(const server *s)
{
    dk_string url = DK_STRING_EMPTY;
    const dk_serve_options *o = s->setup->options;
    bool six = strchr(o->host, ':') != NULL;
    dk_string_printf(&url, "http%s://%s%s%s:%d", o->ssl_certfile != NULL ? "s" : "",
                     six ? "[" : "", o->host, six ? "]" : "", dk_http_server_port(s->http));
    s->setup->listening(s->setup->context, url.data);
    dk_string_release(&url);
}

static void tell_ready(server *s)
{
    if (!s->told_ready && dk_service_is_ready(s->service)) {
        json_t *model = dk_service_model(s->service);
        s->told_ready = true;
        s->setup->ready(s->setup->context, json_string_value(json_object_get(model, "model")),
                        json_string_value(json_object_get(model, "device")));
        json_decref(model);
    }
}

static void forget(void *context, const char *id)
{
    const server *s = context;
    dk_log_info(s->setup->log, "%s has expired", id);
}

static void look_after_store(server *s)
{
    dk_error error;
    if (dk_now_ms() - s->tidied_ms >= TIDY_MS) {
        dk_jobs_tidy_log(s->jobs);
        s->tidied_ms = dk_now_ms();
    }
    if (dk_now_ms() - s->expired_ms < EXPIRE_MS) {
        return;
    }
    s->expired_ms = dk_now_ms();
    if (dk_jobs_expire(s->jobs, forget, s, &error) != DK_OK) {
        dk_log_warn(s->setup->log, "%s", error.message);
    }
}

/* Until a signal comes, or no worker will ever be ready. */
static dk_status serve(server *s, dk_error *err)
{
    dk_error fatal = {0};
    while (!ending) {
        usleep(LOOK_MS * 1000);
        tell_ready(s);
        look_after_store(s);
        if (dk_service_fatal(s->service, &fatal) != DK_OK) {
            return dk_fail(err, fatal.status, "%s", fatal.message);
        }
    }
    dk_http_server_quiesce(s->http);
    dk_service_drain(s->service, s->setup->options->drain_timeout * 1000.0, &hurry);
    return DK_OK;
}

/* Exchanges that wait for jobs are answered by the service's end, before HTTP's. */
static void stop(server *s)
{
    if (s->service != NULL) {
        dk_service_end(s->service);
    }
    dk_http_server_stop(&s->http);
    dk_api_destroy(&s->api);
    dk_service_stop(&s->service);
    dk_jobs_close(&s->jobs);
    if (s->run_folder != NULL) {
        dk_run_folder_remove(s->run_folder);
    }
    dk_free(s->run_folder);
    dk_free(s->link_text);
    dk_serve_keys_release(&s->keys);
}

dk_status dk_serve_run(const dk_serve_setup *setup, dk_error *err)
{
    server s = {.setup = setup, .access_log = *setup->log};
    s.access_log.level = DK_LOG_INFO;
    watch_signals();
    dk_status status = start(&s, err);
    if (status == DK_OK) {
        tell_listening(&s);
        status = serve(&s, err);
    }
    stop(&s);
    return status;
}
