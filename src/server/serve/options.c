/* Flags of the server. */
#include "server/serve/serve.h"

#define AT(field) .offset = offsetof(dk_serve_options, field)
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
#define WHOLE(word, least, most, usual, line)                                                  \
    {                                                                                          \
        .name = #word, .type = DK_PARAMETER_INT, AT(word), .min = least, .max = most,          \
        .default_text = usual, .help = line                                                    \
    }

static const dk_parameter parameters[] = {
    TEXT(host, "ADDRESS", "127.0.0.1", "where to listen; 0.0.0.0 or :: for everybody"),
    WHOLE(port, 0, 65535, "30000", "0: any free one"),
    TEXT(store_path, "FOLDER", "XDG_STATE_HOME/darkroom",
         "jobs and results; one server uses it at a time"),
    TEXT(served_model_name, "NAME", "the model's", "what the API calls the model"),
    TEXT(api_key, "KEY", "none: everybody may come in", "key that clients must send"),
    TEXT(api_key_file, "FILE", "none", "keys, one per line; each has its share of the devices"),
    TEXT(cors_origin, "ORIGIN", "off", "web pages of this origin (or *) may use the API"),
    TEXT(ssl_certfile, "FILE", "none: no TLS", "certificate chain, PEM"),
    TEXT(ssl_keyfile, "FILE", "none", "its key, PEM"),
    TEXT(scheduler_endpoint, "ENDPOINT", "one is started",
         "a `darkroom scheduler` that runs already: ipc:// or, with CURVE keys, tcp://"),
    TEXT(curve_keys, "FILE", "none", "lines secret=KEY and server=KEY, mode 0600"),
    TEXT(
        allowed_url_hosts, "HOSTS", "none: no pictures by URL",
        "hosts that pictures may be fetched from, by commas; .example.org for all of a domain"),
    WHOLE(max_queue, 1, 1000000, "1000", "jobs in flight; more are refused with 429"),
    WHOLE(max_connections, 1, 100000, "4096", "connections; more are closed"),
    REAL(max_body_mb, 4096, "MB", "64", "longest request body"),
    REAL(max_pixels, 1e12, "N", "1e9", "largest output: width x height x frames"),
    REAL(max_memory_gb, 1e6, "GB", "0: what is free",
         "memory of a worker; requests that need more are refused"),
    REAL(keep_results_h, 1e6, "H", "168", "finished jobs are removed after; 0: never"),
    REAL(max_store_gb, 1e6, "GB", "20",
         "finished jobs are removed, oldest first, above; 0: no limit"),
    REAL(drain_timeout, 86400, "S", "30",
         "after SIGTERM, time for running jobs to end; they go on when the server is back"),
    {.name = "log_requests",
     .type = DK_PARAMETER_BOOL,
     AT(log_requests),
     .default_text = "false",
     .help = "a line on stderr for every HTTP request"},
};

const dk_parameter_table dk_serve_parameters = {
    .title = "Server",
    .parameters = parameters,
    .count = sizeof parameters / sizeof *parameters,
};

void dk_serve_options_init(dk_serve_options *options)
{
    *options = (dk_serve_options){.host = "127.0.0.1",
                                  .port = 30000,
                                  .max_queue = 1000,
                                  .max_connections = 4096,
                                  .max_body_mb = 64,
                                  .max_pixels = 1e9,
                                  .keep_results_h = 168,
                                  .max_store_gb = 20,
                                  .drain_timeout = 30};
}
