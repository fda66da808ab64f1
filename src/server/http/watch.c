/* The watch: one thread, one poll. */
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/http/events.h"
#include "server/http/internal.h"

enum { TICK_MS = 250, DRAIN_BYTES = 64 * 1024, DRAIN_READS = 4 };

static void wake(dk_http_watch *watch)
{
    uint64_t one = 1;
    ssize_t written = write(watch->wake_fd, &one, sizeof one);
    (void)written; /* full: then it is awake already */
}

/* Tells the client why, as far as its socket takes it at once, and ends the connection: the
   mover sees its end. */
static void cut(const dk_http_watch *watch, dk_http_connection *connection)
{
    static const char body[] =
        "{\"error\": {\"message\": \"the request took too long to arrive\", "
        "\"type\": \"invalid_request_error\", \"param\": null, \"code\": null}}";
    if (watch->tell_cut && connection->exchange != NULL) {
        char reply[512];
        int length = snprintf(reply, sizeof reply,
                              "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json"
                              "\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                              sizeof body - 1, body);
        ssize_t sent = send(connection->fd, reply, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)sent;
    }
    shutdown(connection->fd, SHUT_RDWR);
    connection->deadline_ms = 0;
}

static void check_deadlines(dk_http_watch *watch, double now)
{
    for (dk_http_connection *c = watch->connections; c != NULL; c = c->next) {
        if (c->deadline_ms > 0 && c->deadline_ms < now) {
            cut(watch, c);
        }
    }
}

/* False: it is over. */
static bool drain(dk_http_lingering *lingering, double now)
{
    char bytes[DRAIN_BYTES];
    if (!lingering->shut) {
        shutdown(lingering->fd, SHUT_WR);
        lingering->shut = true;
    }
    for (int i = 0; i < DRAIN_READS; i++) {
        ssize_t got = recv(lingering->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got == 0) {
            return false;
        }
        if (got < 0) {
            break;
        }
    }
    return now < lingering->deadline_ms;
}

static void drain_all(dk_http_watch *watch, double now)
{
    int kept = 0;
    for (int i = 0; i < watch->lingering_count; i++) {
        if (drain(&watch->lingering[i], now)) {
            watch->lingering[kept++] = watch->lingering[i];
        } else {
            close(watch->lingering[i].fd);
        }
    }
    watch->lingering_count = kept;
}

static int prepare_poll(const dk_http_watch *watch, struct pollfd *polled)
{
    polled[0] = (struct pollfd){.fd = watch->wake_fd, .events = POLLIN};
    for (int i = 0; i < watch->lingering_count; i++) {
        polled[i + 1] = (struct pollfd){.fd = watch->lingering[i].fd, .events = POLLIN};
    }
    return 1 + watch->lingering_count;
}

static void *run(void *context)
{
    dk_http_watch *watch = context;
    struct pollfd polled[1 + DK_HTTP_MAX_LINGERING];
    pthread_mutex_lock(&watch->lock);
    while (!watch->stopping) {
        bool idle = watch->connections == NULL && watch->lingering_count == 0;
        nfds_t count = (nfds_t)prepare_poll(watch, polled);
        pthread_mutex_unlock(&watch->lock);
        poll(polled, count, idle ? -1 : TICK_MS);
        if (polled[0].revents != 0) {
            uint64_t value;
            ssize_t got = read(watch->wake_fd, &value, sizeof value);
            (void)got;
        }
        double now = dk_now_ms();
        pthread_mutex_lock(&watch->lock);
        check_deadlines(watch, now);
        drain_all(watch, now);
        dk_http_streams_comment(watch->streams, now, watch->comment_ms);
    }
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

dk_status dk_http_watch_init(dk_http_watch *watch, bool tell_cut, int comment_ms, dk_error *err)
{
    *watch = (dk_http_watch){.tell_cut = tell_cut, .comment_ms = comment_ms};
    watch->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch->wake_fd < 0) {
        return dk_fail(err, DK_MEMORY, "no file descriptor is left for the HTTP server");
    }
    pthread_mutex_init(&watch->lock, NULL);
    watch->running = true;
    dk_status status = dk_http_thread_create(&watch->thread, run, watch, err);
    if (status != DK_OK) {
        watch->running = false;
        pthread_mutex_destroy(&watch->lock);
        close(watch->wake_fd);
    }
    return status;
}

void dk_http_watch_release(dk_http_watch *watch)
{
    if (!watch->running) {
        return;
    }
    pthread_mutex_lock(&watch->lock);
    watch->stopping = true;
    pthread_mutex_unlock(&watch->lock);
    wake(watch);
    pthread_join(watch->thread, NULL);
    for (int i = 0; i < watch->lingering_count; i++) {
        close(watch->lingering[i].fd);
    }
    close(watch->wake_fd);
    pthread_mutex_destroy(&watch->lock);
    watch->running = false;
}

void dk_http_watch_add(dk_http_watch *watch, dk_http_connection *connection, double seconds)
{
    connection->deadline_ms = dk_now_ms() + seconds * 1e3;
    atomic_fetch_add(&watch->connection_count, 1);
    pthread_mutex_lock(&watch->lock);
    bool first = watch->connections == NULL;
    connection->next = watch->connections;
    if (connection->next != NULL) {
        connection->next->previous = connection;
    }
    watch->connections = connection;
    pthread_mutex_unlock(&watch->lock);
    if (first) {
        wake(watch);
    }
}

void dk_http_watch_remove(dk_http_watch *watch, dk_http_connection *connection)
{
    pthread_mutex_lock(&watch->lock);
    if (connection->previous != NULL) {
        connection->previous->next = connection->next;
    } else {
        watch->connections = connection->next;
    }
    if (connection->next != NULL) {
        connection->next->previous = connection->previous;
    }
    pthread_mutex_unlock(&watch->lock);
    atomic_fetch_sub(&watch->connection_count, 1);
}

static void set_state(dk_http_watch *watch, dk_http_connection *connection,
                      dk_http_exchange *exchange, double seconds)
{
    double deadline = seconds > 0 ? dk_now_ms() + seconds * 1e3 : 0;
    pthread_mutex_lock(&watch->lock);
    connection->exchange = exchange;
    connection->deadline_ms = deadline;
    pthread_mutex_unlock(&watch->lock);
}

void dk_http_watch_expect(dk_http_watch *watch, dk_http_connection *connection, double seconds)
{
    set_state(watch, connection, connection->exchange, seconds);
}

void dk_http_watch_begin(dk_http_watch *watch, dk_http_connection *connection,
                         dk_http_exchange *exchange, double seconds)
{
    set_state(watch, connection, exchange, seconds);
}

void dk_http_watch_end(dk_http_watch *watch, dk_http_connection *connection, double seconds)
{
    set_state(watch, connection, NULL, seconds);
}

void dk_http_watch_abandon(dk_http_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    for (dk_http_connection *c = watch->connections; c != NULL; c = c->next) {
        if (c->exchange != NULL) {
            dk_http_exchange_abandon(c->exchange);
        }
    }
    pthread_mutex_unlock(&watch->lock);
}

void dk_http_watch_linger(dk_http_watch *watch, int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) {
        return;
    }
    pthread_mutex_lock(&watch->lock);
    bool room = watch->lingering_count < DK_HTTP_MAX_LINGERING && !watch->stopping;
    if (room) {
        watch->lingering[watch->lingering_count++] =
            (dk_http_lingering){.fd = copy, .deadline_ms = dk_now_ms() + DK_HTTP_LINGER_MS};
    }
    pthread_mutex_unlock(&watch->lock);
    if (room) {
        wake(watch);
    } else {
        close(copy);
    }
}
