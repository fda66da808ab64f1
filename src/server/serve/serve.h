/* The server process: store, scheduler, service, API and HTTP put together. */
#ifndef DK_SERVER_SERVE_SERVE_H
#define DK_SERVER_SERVE_SERVE_H

#include "base/log.h"
#include "base/parameter.h"
#include "comm/groups.h"

typedef struct dk_serve_options {
    const char *host;
    int port;
    const char *store_path, *served_model_name;
    const char *api_key, *api_key_file, *cors_origin, *ssl_certfile, *ssl_keyfile;
    const char *scheduler_endpoint, *curve_keys; /* a scheduler that runs elsewhere */
    const char *allowed_url_hosts;
    int max_queue, max_connections;
    double max_body_mb, max_pixels, max_memory_gb;
    double keep_results_h, max_store_gb;
    double drain_timeout;
    bool log_requests;
} dk_serve_options;

void dk_serve_options_init(dk_serve_options *options);
extern const dk_parameter_table dk_serve_parameters;

typedef struct dk_serve_setup {
    const dk_serve_options *options;
    const char *store_path;            /* made when absent */
    const char *run_folder_base;       /* where the private folder is made */
    const char *const *scheduler_argv; /* see dk_service_options */
    const dk_layout *layout;           /* of the workers: what clients are told */
    const dk_log *log;
    /* Called once, when it listens; and when the first worker is ready. */
    void (*listening)(void *context, const char *url);
    void (*ready)(void *context, const char *model, const char *device);
    void *context;
} dk_serve_setup;

/* Serves until SIGTERM, SIGINT or SIGHUP, then drains; a second signal ends it at once. */
DK_MUST_USE dk_status dk_serve_run(const dk_serve_setup *setup, dk_error *err);

#endif
