/* The thread that holds the link: starts the scheduler, and again when it dies or falls silent;
   carries messages both ways. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/process.h"
#include "base/string.h"
#include "server/service/state.h"

enum {
    TICK_MS = 200,
    SILENCE_MS = 15000,
    PAUSE_MS = 500,
    GRACE_MS = 2000,
    MAX_WORDS = 128,
    MOST_STILLBORN = 5
};

void dk_service_post(dk_service *service, dk_message *message)
{
    dk_outbox_entry *entry = dk_alloc(sizeof *entry);
    const uint64_t one = 1;
    entry->message = *message;
    pthread_mutex_lock(&service->lock);
    if (service->outbox_last != NULL) {
        service->outbox_last->next = entry;
    } else {
        service->outbox = entry;
    }
    service->outbox_last = entry;
    pthread_mutex_unlock(&service->lock);
    while (write(service->wake, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

/* Takes all that waits to be sent. */
static dk_outbox_entry *take_outbox(dk_service *service)
{
    pthread_mutex_lock(&service->lock);
    dk_outbox_entry *first = service->outbox;
    service->outbox = service->outbox_last = NULL;
    pthread_mutex_unlock(&service->lock);
    return first;
}

/* What cannot be sent is no loss: jobs are submitted again when the scheduler is back. */
static void send_outbox(dk_service *service)
{
    uint64_t count;
    dk_outbox_entry *entry = take_outbox(service);
    if (read(service->wake, &count, sizeof count) < 0) {
        /* Nothing woke this thread: the tick did. */
    }
    while (entry != NULL) {
        dk_outbox_entry *next = entry->next;
        dk_error error;
        if (service->link != NULL &&
            dk_link_send(service->link, NULL, &entry->message, &error) != DK_OK) {
            dk_log_warn(service->options.log, "%s", error.message);
        }
        dk_message_release(&entry->message);
        dk_free(entry);
        entry = next;
    }
}

static dk_status spawn(dk_service *service, const char *endpoint, dk_error *err)
{
    const char *words[MAX_WORDS + 3] = {NULL};
    dk_string flag = DK_STRING_EMPTY;
    char parent[32];
    int count = 0;
    while (count < MAX_WORDS && service->options.scheduler_argv[count] != NULL) {
        words[count] = service->options.scheduler_argv[count];
        count++;
    }
    dk_string_printf(&flag, "--endpoint=%s", endpoint);
    snprintf(parent, sizeof parent, "--parent-pid=%d", (int)getpid());
    words[count++] = flag.data;
    words[count] = parent;
    dk_status status = dk_process_start(&service->scheduler, words, -1, true, err);
    dk_string_release(&flag);
    return status;
}

static void say_hello(dk_service *service)
{
    dk_message hello;
    dk_error error;
    dk_message_init(&hello, "hello");
    if (dk_link_send(service->link, NULL, &hello, &error) != DK_OK) {
        dk_log_warn(service->options.log, "%s", error.message);
    }
    dk_message_release(&hello);
}

static dk_status start_scheduler(dk_service *service, dk_error *err)
{
    dk_string endpoint = DK_STRING_EMPTY;
    const dk_service_options *o = &service->options;
    bool own = o->scheduler_argv != NULL;
    if (own) {
        dk_string_printf(&endpoint, "ipc://%s/scheduler-%d", o->run_folder,
                         service->instance++);
    } else {
        dk_string_puts(&endpoint, o->scheduler_endpoint);
    }
    dk_status status = own ? spawn(service, endpoint.data, err) : DK_OK;
    if (status == DK_OK) {
        status = dk_link_connect(&service->link, endpoint.data, o->keys, err);
    }
    dk_string_release(&endpoint);
    service->started_ms = service->heard_ms = dk_now_ms();
    service->greeted = false;
    dk_service_plan_lost(service);
    if (status == DK_OK) {
        say_hello(service);
    }
    return status;
}

static void end_scheduler(dk_service *service)
{
    dk_process_kill(&service->scheduler);
    dk_link_close(&service->link);
    pthread_mutex_lock(&service->lock);
    json_decref(service->report);
    service->report = NULL;
    pthread_mutex_unlock(&service->lock);
}

static bool is_gone(dk_service *service, const char **why)
{
    *why = "ended";
    if (service->link == NULL) {
        return true;
    }
    if (service->options.scheduler_argv != NULL && dk_process_has_ended(&service->scheduler)) {
        return true;
    }
    *why = "is silent";
    return dk_now_ms() - service->heard_ms > SILENCE_MS;
}

/* One that never came up will not: what is wrong are its arguments, or an address. */
static void note_end(dk_service *service, const char *why)
{
    bool is_born = service->ever_greeted || service->options.scheduler_argv == NULL;
    if (is_born || service->link == NULL || strcmp(why, "ended") != 0 ||
        ++service->stillborn < MOST_STILLBORN) {
        return;
    }
    pthread_mutex_lock(&service->lock);
    (void)dk_fail(&service->fatal, DK_INVALID,
                  "the scheduler ended %d times as soon as it was started: it said why above",
                  service->stillborn);
    pthread_mutex_unlock(&service->lock);
}

static void watch_scheduler(dk_service *service)
{
    const char *why;
    dk_error error;
    if (!is_gone(service, &why)) {
        return;
    }
    if (service->started_ms > 0) {
        if (service->link != NULL) {
            dk_log_warn(service->options.log, "the scheduler %s and is started again", why);
        }
        note_end(service, why);
        end_scheduler(service);
        if (dk_now_ms() - service->started_ms < PAUSE_MS) {
            return; /* the next tick tries again */
        }
        dk_metrics_add(service->metrics, "darkroom_scheduler_restarts_total", "", 1);
    }
    if (start_scheduler(service, &error) != DK_OK) {
        dk_log_warn(service->options.log, "%s", error.message);
    }
}

static void read_link(dk_service *service)
{
    for (bool received = service->link != NULL; received;) {
        dk_message message = {.fd = -1};
        dk_error error;
        if (dk_link_receive(service->link, NULL, &message, &received, &error) != DK_OK) {
            dk_log_warn(service->options.log, "%s", error.message);
            received = true;
        } else if (received) {
            service->heard_ms = dk_now_ms();
            dk_service_take_message(service, &message);
            dk_message_release(&message);
        }
    }
}

static void *run(void *argument)
{
    dk_service *service = argument;
    while (!atomic_load(&service->stopping)) {
        zmq_pollitem_t items[2] = {{.fd = service->wake, .events = ZMQ_POLLIN}};
        watch_scheduler(service);
        int count = 1;
        if (service->link != NULL) {
            items[count++] =
                (zmq_pollitem_t){.socket = dk_link_socket(service->link), .events = ZMQ_POLLIN};
        }
        zmq_poll(items, count, TICK_MS);
        send_outbox(service);
        read_link(service);
    }
    dk_process_end(&service->scheduler, GRACE_MS); /* it ends its workers */
    end_scheduler(service);
    return NULL;
}

dk_status dk_service_link_start(dk_service *service, dk_error *err)
{
    service->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (service->wake < 0) {
        return dk_fail(err, DK_IO, "an eventfd: %s", strerror(errno));
    }
    if (pthread_create(&service->link_thread, NULL, run, service) != 0) {
        return dk_fail(err, DK_MEMORY, "the service's thread does not start");
    }
    return DK_OK;
}

void dk_service_link_stop(dk_service *service)
{
    const uint64_t one = 1;
    atomic_store(&service->stopping, true);
    if (write(service->wake, &one, sizeof one) < 0) {
        /* The tick wakes the thread as well. */
    }
    pthread_join(service->link_thread, NULL);
    for (dk_outbox_entry *entry = take_outbox(service); entry != NULL;) {
        dk_outbox_entry *next = entry->next;
        dk_message_release(&entry->message);
        dk_free(entry);
        entry = next;
    }
    close(service->wake);
}
