/* Between a worker's socket and the scheduler's. One thread does everything. */
#include "server/worker/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/process.h"
#include "server/wire/pipe.h"
#include "server/worker/relay_files.h"

enum {
    HERE_MS = 500,
    FIRST_MS = 60000,   /* for the first word of the scheduler */
    SILENCE_MS = 20000, /* see relay.h */
    FIND_MS = 60000,
    AGAIN_MS = 200,
    STOP_MS = 10000, /* for a worker to close its engine */
    LOOK_MS = 5,
    LEAVE_MS = 1000,
};

typedef struct relay {
    const dk_relay_options *options;
    dk_link *link; /* NULL: it is not known where the scheduler is */
    dk_pipe *pipe; /* NULL: no worker */
    dk_relay_files *files;
    pid_t worker;
    json_int_t life; /* the worker's number; 0: the scheduler has not named it */
    double told_ms, heard_ms, patience_ms;
    bool ends;
    dk_status status;
    dk_error error;
} relay;

static void end_with(relay *r, dk_status status)
{
    r->status = status;
    r->ends = true;
}

/* What cannot be sent is missed by the scheduler, which then starts the worker again. */
static void send_up(relay *r, dk_message *message)
{
    dk_error error;
    if (r->link != NULL && dk_link_send(r->link, NULL, message, &error) != DK_OK) {
        dk_log_warn(r->options->log, "%s", error.message);
    }
    dk_message_release(message);
}

/* coming: bytes that occupy the link from now on. */
static void say_here(relay *r, size_t coming)
{
    dk_message message;
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    dk_message_pack(&message, "here", "{s:i, s:i, s:s, s:f}", "replica", r->options->replica,
                    "pid", (int)r->worker, "host", host, "coming", (double)coming);
    send_up(r, &message);
    r->told_ms = dk_now_ms();
}

static void say(relay *r, const char *word)
{
    dk_message message;
    dk_message_pack(&message, word, "{s:I}", "life", r->life);
    send_up(r, &message);
}

static dk_status start_worker(relay *r, dk_error *err)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        return dk_fail(err, DK_IO, "a socket for the worker: %s", strerror(errno));
    }
    dk_status status =
        dk_process_start(&r->worker, r->options->worker_argv, ends[1], false, err);
    close(ends[1]);
    if (status != DK_OK) {
        close(ends[0]);
        return status;
    }
    r->pipe = dk_pipe_create(ends[0], false);
    return DK_OK;
}

static void kill_worker(relay *r)
{
    dk_process_kill(&r->worker);
    dk_pipe_destroy(&r->pipe);
    dk_relay_files_clear(r->files);
}

/* The worker has ended by itself. */
static void lose_worker(relay *r)
{
    kill_worker(r);
    say(r, "ended");
    r->life = 0;
    if (r->options->once) {
        end_with(r, dk_fail(&r->error, DK_DEVICE,
                            "the worker of replica %d has ended: whoever started the ranks has "
                            "to start them again",
                            r->options->replica));
    }
}

/* A worker that was started before the scheduler was known gets its number now. */
static void take_start(relay *r, const dk_message *message)
{
    dk_error error;
    bool is_unnamed = r->pipe != NULL && r->life == 0;
    r->life = (json_int_t)dk_message_number(message, "life", 0);
    if (is_unnamed) {
        return;
    }
    kill_worker(r);
    if (start_worker(r, &error) != DK_OK) {
        dk_log_warn(r->options->log, "%s", error.message);
        say(r, "ended");
    }
    say_here(r, 0);
}

static void pass_down(relay *r, dk_message *message)
{
    dk_error error;
    if (r->pipe == NULL || (json_int_t)dk_message_number(message, "life", -1) != r->life) {
        return; /* for a worker that is gone: the scheduler hears that */
    }
    const char *type = dk_message_type(message);
    if (strcmp(type, "file") == 0) {
        if (dk_relay_files_keep(r->files, message, &error) != DK_OK) {
            dk_log_warn(r->options->log, "%s", error.message);
        }
    } else if (strcmp(type, "filed") == 0) {
        dk_relay_files_arrived(r->files);
    } else if (strcmp(type, "run") == 0 && !dk_relay_files_use(r->files, message)) {
        say(r, "blind");
    } else if (dk_pipe_send(r->pipe, message, &error) != DK_OK) {
        lose_worker(r);
    }
}

static void note_heard(relay *r, const dk_message *message)
{
    double silence = r->options->silence_ms > 0 ? r->options->silence_ms : SILENCE_MS;
    r->heard_ms = dk_now_ms();
    r->patience_ms = silence + dk_message_coming_ms(message);
}

static void take_down(relay *r, dk_message *message)
{
    const char *type = dk_message_type(message);
    note_heard(r, message);
    if (strcmp(type, "start") == 0) {
        take_start(r, message);
    } else if (strcmp(type, "kill") == 0) {
        kill_worker(r);
        r->life = 0;
        if (r->options->once) {
            end_with(r, dk_fail(&r->error, DK_DEVICE,
                                "the scheduler has given up the worker of replica %d",
                                r->options->replica));
        }
    } else if (strcmp(type, "end") == 0) {
        const char *why = dk_message_text(message, "why");
        end_with(r, why[0] == '\0' ? DK_OK : dk_fail(&r->error, DK_INVALID, "%s", why));
    } else if (strcmp(type, "here") != 0) {
        pass_down(r, message);
    }
}

static void read_scheduler(relay *r)
{
    for (bool received = r->link != NULL; received && !r->ends;) {
        dk_message message = {.fd = -1};
        dk_error error;
        if (dk_link_receive(r->link, NULL, &message, &received, &error) != DK_OK) {
            dk_log_warn(r->options->log, "%s", error.message);
            received = true;
        } else if (received) {
            take_down(r, &message);
            dk_message_release(&message);
        }
    }
}

/* By names, or by the addresses of a host of several networks: some may lead nowhere. */
static dk_status connect_by(relay *r, const dk_introduction *i, dk_error *err)
{
    const dk_link_keys keys = {.secret = i->secret, .server_public = i->server};
    char endpoint[DK_INTRODUCTION_ENDPOINT_BYTES];
    double until_ms = dk_now_ms() + FIND_MS;
    dk_status status;
    while ((status = dk_introduction_find(endpoint, i, err)) != DK_OK &&
           dk_now_ms() < until_ms) {
        usleep(AGAIN_MS * 1000);
    }
    DK_TRY(status);
    DK_TRY(dk_link_connect(&r->link, endpoint, &keys, err));
    dk_log_info(r->options->log, "replica %d takes requests from %s", r->options->replica,
                endpoint);
    r->heard_ms = dk_now_ms();
    r->patience_ms = FIRST_MS;
    say_here(r, 0);
    return DK_OK;
}

static void take_introduction(relay *r, const dk_message *message)
{
    dk_introduction i;
    dk_status status = dk_introduction_read(&i, dk_message_text(message, "text"), &r->error);
    if (status == DK_OK) {
        status = connect_by(r, &i, &r->error);
    }
    if (status != DK_OK) {
        end_with(r, status);
    }
}

/* A worker that fails before it is introduced has nobody else to tell. */
static void take_up_early(relay *r, const dk_message *message)
{
    const char *type = dk_message_type(message);
    if (strcmp(type, "introduction") == 0) {
        take_introduction(r, message);
    } else if (strcmp(type, "failed") == 0) {
        end_with(r, dk_fail(&r->error,
                            (dk_status)dk_message_number(message, "status", DK_INTERNAL), "%s",
                            dk_message_text(message, "message")));
    }
}

/* Of this life of the worker; taken. */
static void send_of_life(relay *r, dk_message *message)
{
    size_t bytes = 0;
    for (int i = 0; i < message->blob_count; i++) {
        bytes += message->blobs[i].size;
    }
    if (bytes >= DK_MESSAGE_LARGE_BYTES) {
        say_here(r, bytes);
    }
    json_object_set_new(message->header, "life", json_integer(r->life));
    send_up(r, message);
}

static void pass_up(relay *r, dk_message *message)
{
    dk_error error;
    if (message->fd >= 0 && dk_message_take_in(message, &error) != DK_OK) {
        dk_log_warn(r->options->log, "%s", error.message);
        return;
    }
    if (strcmp(dk_message_type(message), "idle") == 0) {
        dk_relay_files_clear(r->files);
    }
    send_of_life(r, message);
    *message = (dk_message){.fd = -1};
}

/* Whether the worker may be read now: between its introduction and its number it waits. */
static bool may_read(const relay *r)
{
    return r->pipe != NULL && (r->link == NULL || r->life != 0);
}

static void read_worker(relay *r)
{
    for (bool received = true; received && may_read(r) && !r->ends;) {
        dk_message message = {.fd = -1};
        dk_error error;
        if (dk_pipe_receive(r->pipe, &message, &received, &error) != DK_OK) {
            lose_worker(r);
            return;
        }
        if (received && r->link != NULL) {
            pass_up(r, &message);
        } else if (received) {
            take_up_early(r, &message);
        }
        dk_message_release(&message);
    }
}

static void send_checkpoint(relay *r)
{
    dk_message message;
    if (r->link != NULL && r->life != 0 && dk_relay_files_changed(r->files, &message)) {
        send_of_life(r, &message);
    }
}

static void look_at_clock(relay *r)
{
    double silent = dk_now_ms() - r->heard_ms;
    if (r->link == NULL) {
        return;
    }
    if (dk_now_ms() - r->told_ms >= HERE_MS) {
        say_here(r, 0);
    }
    if (silent > r->patience_ms) {
        end_with(r,
                 dk_fail(&r->error, DK_NETWORK,
                         "rank 0's scheduler was not heard of for %.0f s: its process or the "
                         "network is gone",
                         silent / 1e3));
    }
}

static void wait_and_read(relay *r, int signals)
{
    dk_error error;
    zmq_pollitem_t items[3] = {
        {.fd = signals, .events = ZMQ_POLLIN}, {.fd = signals}, {.fd = signals}};
    if (may_read(r)) {
        bool writes = dk_pipe_wants_write(r->pipe);
        items[1] = (zmq_pollitem_t){.fd = dk_pipe_fd(r->pipe),
                                    .events = (short)(ZMQ_POLLIN | (writes ? ZMQ_POLLOUT : 0))};
    }
    if (r->link != NULL) {
        items[2] = (zmq_pollitem_t){.socket = dk_link_socket(r->link), .events = ZMQ_POLLIN};
    }
    zmq_poll(items, 3, HERE_MS);
    if ((items[0].revents & ZMQ_POLLIN) != 0) {
        end_with(r, dk_fail(&r->error, DK_CANCELLED, "stopped on request"));
    }
    read_scheduler(r);
    if (may_read(r) && dk_pipe_flush(r->pipe, &error) != DK_OK) {
        lose_worker(r);
    }
    read_worker(r);
    send_checkpoint(r);
    look_at_clock(r);
}

/* Asks the worker to close its engine, which tells the replica's other ranks. */
static void stop_worker(relay *r)
{
    dk_message message;
    dk_error ignored;
    double until_ms = dk_now_ms() + STOP_MS;
    if (r->pipe != NULL) {
        dk_message_init(&message, "stop");
        bool sent = dk_pipe_send(r->pipe, &message, &ignored) == DK_OK;
        dk_message_release(&message);
        while (sent && !dk_process_has_ended(&r->worker) && dk_now_ms() < until_ms) {
            bool received = true;
            while (received &&
                   dk_pipe_receive(r->pipe, &message, &received, &ignored) == DK_OK &&
                   received) {
                dk_message_release(&message); /* nobody waits for it any more */
            }
            usleep(LOOK_MS * 1000);
        }
    }
    kill_worker(r);
}

dk_status dk_relay_run(const dk_relay_options *options, dk_error *err)
{
    int signals = -1;
    relay r = {.options = options};
    DK_TRY(dk_process_watch_ends(&signals, err));
    r.files = dk_relay_files_create(options->folder);
    dk_status status = options->introduction != NULL
                           ? connect_by(&r, options->introduction, err)
                           : start_worker(&r, err);
    while (status == DK_OK && !r.ends) {
        wait_and_read(&r, signals);
    }
    if (r.ends) {
        status = r.status;
        say(&r, "leaving");
    }
    stop_worker(&r);
    dk_link_finish(&r.link, LEAVE_MS);
    dk_relay_files_destroy(&r.files);
    close(signals);
    return status == DK_OK || !r.ends ? status : dk_fail(err, status, "%s", r.error.message);
}
