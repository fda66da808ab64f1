/* Start and stop of the HTTP server, and what libmicrohttpd tells about connections. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/string.h"
#include "server/http/events.h"
#include "server/http/internal.h"

enum {
    SPARE_CONNECTIONS = 64, /* so that libmicrohttpd accepts, and closes, those above ours */
    PEM_BYTES = 1024 * 1024,
    FLUSH_MS = 2000, /* for replies on their way when the server stops */
    FLUSH_STEP_MS = 5,
};

void dk_http_options_init(dk_http_options *options)
{
    *options = (dk_http_options){
        .host = "127.0.0.1",
        .port = 30000,
        .max_connections = 4096,
        .max_body_bytes = (size_t)64 << 20,
        .max_total_bytes = (size_t)512 << 20,
        .max_parts = 64,
        .idle_timeout_s = 60,
        .request_timeout_s = 300,
        .handler_threads = 4,
    };
}

static void on_log(void *context, const char *format, va_list args)
{
    dk_http_server *server = context;
    char line[256];
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = '\0';
    if (pthread_equal(pthread_self(), server->starter)) {
        snprintf(server->problem, sizeof server->problem, "%s", line);
    }
    dk_log_debug(server->options.log, "http: %s", line);
}

/* More connections than are wanted are closed at once, not left waiting. */
static enum MHD_Result on_accept(void *context, const struct sockaddr *address, socklen_t size)
{
    (void)address, (void)size;
    dk_http_server *server = context;
    int count = atomic_load(&server->watch.connection_count);
    if (count >= server->options.max_connections) {
        dk_log_debug(server->options.log, "http: a connection above %d is refused", count);
        return MHD_NO;
    }
    return MHD_YES;
}

static void begin_connection(dk_http_server *server, struct MHD_Connection *mhd, void **slot)
{
    dk_http_connection *connection = dk_alloc(sizeof *connection);
    const union MHD_ConnectionInfo *fd =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    connection->fd = fd->connect_fd;
    if (getpeername(connection->fd, (struct sockaddr *)&address, &size) == 0) {
        getnameinfo((struct sockaddr *)&address, size, connection->client,
                    sizeof connection->client, NULL, 0, NI_NUMERICHOST);
    }
    if (dk_starts_with(connection->client, "::ffff:")) { /* IPv4 on a socket for both */
        memmove(connection->client, connection->client + 7, strlen(connection->client) - 6);
    }
    *slot = connection;
    dk_http_watch_add(&server->watch, connection, server->options.request_timeout_s);
}

static void on_connection(void *context, struct MHD_Connection *mhd, void **slot,
                          enum MHD_ConnectionNotificationCode what)
{
    dk_http_server *server = context;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        begin_connection(server, mhd, slot);
    } else if (*slot != NULL) {
        dk_http_watch_remove(&server->watch, *slot);
        dk_free(*slot);
        *slot = NULL;
    }
}

static dk_status read_certificate(dk_http_server *server, dk_error *err)
{
    const dk_http_options *options = &server->options;
    size_t size;
    if (options->ssl_certfile == NULL && options->ssl_keyfile == NULL) {
        return DK_OK;
    }
    if (options->ssl_certfile == NULL || options->ssl_keyfile == NULL) {
        return dk_fail(err, DK_INVALID,
                       "TLS needs both --ssl-certfile and --ssl-keyfile, only one is given");
    }
    if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES) {
        return dk_fail(err, DK_UNSUPPORTED, "this libmicrohttpd was built without TLS");
    }
    DK_TRY(dk_file_read(&server->certificate, &size, options->ssl_certfile, PEM_BYTES, err));
    return dk_file_read(&server->certificate_key, &size, options->ssl_keyfile, PEM_BYTES, err);
}

static dk_status check_options(const dk_http_options *options, dk_error *err)
{
    if (options->max_connections < 1 || options->handler_threads < 1 ||
        options->idle_timeout_s < 1 || options->request_timeout_s < 1 ||
        options->max_parts < 1) {
        return dk_fail(err, DK_INVALID,
                       "an HTTP limit is below 1: connections %d, handler threads %d, idle "
                       "timeout %d s, request timeout %d s, parts of a form %d",
                       options->max_connections, options->handler_threads,
                       options->idle_timeout_s, options->request_timeout_s, options->max_parts);
    }
    return DK_OK;
}

static struct MHD_Daemon *start_daemon(dk_http_server *server)
{
    const dk_http_options *options = &server->options;
    bool tls = server->certificate != NULL;
    unsigned flags =
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (tls ? MHD_USE_TLS : 0);
    const struct MHD_OptionItem secure[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, server->certificate},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, server->certificate_key},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"},
        {MHD_OPTION_END, 0, NULL},
    };
    static const struct MHD_OptionItem plain[] = {{MHD_OPTION_END, 0, NULL}};
    return MHD_start_daemon(
        flags, 0, on_accept, server, dk_http_on_access, server, MHD_OPTION_EXTERNAL_LOGGER,
        on_log, server, MHD_OPTION_LISTEN_SOCKET, server->listen_fd,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)DK_HTTP_CONNECTION_MEMORY,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)(options->max_connections + SPARE_CONNECTIONS),
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)options->idle_timeout_s,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_URI_LOG_CALLBACK, dk_http_on_line, server,
        MHD_OPTION_NOTIFY_COMPLETED, dk_http_on_completed, server, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, server, MHD_OPTION_ARRAY, tls ? secure : plain, MHD_OPTION_END);
}

static dk_status start_mover(dk_http_server *server, dk_error *err)
{
    const dk_http_options *options = &server->options;
    const char *file = options->ssl_certfile != NULL ? options->ssl_certfile : "";
    struct MHD_Daemon *daemon = start_daemon(server);
    if (daemon == NULL) {
        return dk_fail(err, DK_INVALID, "the HTTP server cannot be started%s%s: %s",
                       file[0] != '\0' ? " with the certificate " : "", file,
                       server->problem[0] != '\0' ? server->problem : "no reason was told");
    }
    return dk_http_mover_start(&server->mover, daemon, err);
}

static void free_server(dk_http_server *server)
{
    if (server->listen_fd >= 0) {
        close(server->listen_fd);
    }
    if (server->certificate_key != NULL) {
        explicit_bzero(server->certificate_key, strlen(server->certificate_key));
    }
    dk_free(server->certificate_key);
    dk_free(server->certificate);
    dk_free(server->cors_origin);
    dk_http_auth_release(&server->auth);
    dk_http_tags_release(server);
    pthread_mutex_destroy(&server->tags_lock);
    dk_free(server);
}

static dk_status start_threads(dk_http_server *server, dk_error *err)
{
    const dk_http_options *options = &server->options;
    DK_TRY(dk_http_watch_init(&server->watch, server->certificate == NULL, DK_HTTP_COMMENT_MS,
                              err));
    dk_status status = dk_http_team_init(&server->team, options->handler_threads, err);
    if (status != DK_OK) {
        dk_http_watch_release(&server->watch);
        return status;
    }
    status = start_mover(server, err);
    if (status != DK_OK) {
        dk_http_team_stop(&server->team);
        dk_http_team_release(&server->team);
        dk_http_watch_release(&server->watch);
    }
    return status;
}

dk_status dk_http_server_start(dk_http_server **out, const dk_http_options *options,
                               dk_error *err)
{
    DK_TRY(check_options(options, err));
    dk_status status = DK_OK;
    dk_http_server *server = dk_alloc(sizeof *server);
    server->options = *options;
    server->starter = pthread_self();
    server->listen_fd = -1;
    server->routes = (dk_http_routes){options->routes, options->route_count};
    server->cors_origin = options->cors_origin != NULL ? dk_strdup(options->cors_origin) : NULL;
    pthread_mutex_init(&server->tags_lock, NULL);
    DK_TRY_DONE(
        dk_http_auth_init(&server->auth, options->api_keys, options->api_key_count, err));
    DK_TRY_DONE(read_certificate(server, err));
    server->options.max_connections =
        dk_http_raise_files(options->max_connections, options->log);
    DK_TRY_DONE(
        dk_http_listen(&server->listen_fd, &server->port, options->host, options->port, err));
    DK_TRY_DONE(start_threads(server, err));
    *out = server;
    server = NULL;
done:
    if (server != NULL) {
        free_server(server);
    }
    return status;
}

int dk_http_server_port(const dk_http_server *server)
{
    return server->port;
}

int dk_http_server_connections(const dk_http_server *server)
{
    return atomic_load(&server->watch.connection_count);
}

void dk_http_server_quiesce(dk_http_server *server)
{
    if (!server->quiesced) {
        server->quiesced = true;
        MHD_quiesce_daemon(server->mover.daemon);
        dk_http_mover_wake(&server->mover);
        /* Clients are refused from now on. The number stays taken until nobody may accept. */
        shutdown(server->listen_fd, SHUT_RDWR);
    }
}

/* Replies that are on their way get a little time. */
static void flush(dk_http_server *server)
{
    const struct timespec step = {.tv_nsec = FLUSH_STEP_MS * 1000000L};
    double deadline = dk_now_ms() + FLUSH_MS;
    while (atomic_load(&server->exchanges) > 0 && dk_now_ms() < deadline) {
        nanosleep(&step, NULL);
    }
}

void dk_http_server_stop(dk_http_server **stopped)
{
    dk_http_server *server = *stopped;
    if (server == NULL) {
        return;
    }
    *stopped = NULL;
    dk_http_server_quiesce(server);
    dk_http_team_stop(&server->team);
    dk_http_streams_end(&server->watch);
    flush(server);
    dk_http_watch_abandon(&server->watch);
    dk_http_mover_stop(&server->mover);
    dk_http_watch_release(&server->watch);
    dk_http_team_release(&server->team);
    free_server(server);
}
