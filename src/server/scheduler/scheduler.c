/* The scheduler's loop: messages of clients and workers, and the passing of time. */
#include "server/scheduler/scheduler.h"

#include <unistd.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/process.h"
#include "server/scheduler/state.h"

enum { TICK_MS = 50, END_MS = 1000, LOOK_MS = 2, OTHERS = 3 /* than workers, waited for */ };

static void read_clients(dk_scheduler *s)
{
    for (bool received = true; received;) {
        dk_link_peer peer;
        dk_message message = {.fd = -1};
        dk_error error;
        if (dk_link_receive(s->link, &peer, &message, &received, &error) != DK_OK) {
            dk_log_warn(s->setup->log, "%s", error.message);
            received = true;
        } else if (received) {
            dk_scheduler_take_client_message(s, &peer, &message);
            dk_message_release(&message);
        }
    }
}

static void read_worker(dk_scheduler *s, dk_slot *slot)
{
    for (bool received = true; received && slot->pipe != NULL;) {
        dk_message message = {.fd = -1};
        dk_error error;
        if (dk_pipe_receive(slot->pipe, &message, &received, &error) != DK_OK) {
            dk_scheduler_lose_worker(s, slot, "ended");
            return;
        }
        if (received) {
            dk_scheduler_take_worker_message(s, slot, &message);
            dk_message_release(&message);
        }
    }
}

static void write_worker(dk_scheduler *s, dk_slot *slot)
{
    dk_error error;
    if (slot->pipe != NULL && dk_pipe_flush(slot->pipe, &error) != DK_OK) {
        dk_scheduler_lose_worker(s, slot, "ended");
    }
}

/* Waits for anything. *stop: a signal asks for the end. */
static void wait_and_read(dk_scheduler *s, int signals, zmq_pollitem_t *items, bool *stop)
{
    items[0] = (zmq_pollitem_t){.socket = dk_link_socket(s->link), .events = ZMQ_POLLIN};
    items[1] = (zmq_pollitem_t){.fd = signals, .events = ZMQ_POLLIN};
    items[2] = (zmq_pollitem_t){.fd = signals};
    if (s->relays != NULL) {
        items[2] = (zmq_pollitem_t){.socket = dk_link_socket(s->relays), .events = ZMQ_POLLIN};
    }
    for (int i = 0; i < s->slot_count; i++) {
        const dk_pipe *pipe = s->slots[i].pipe;
        short events = ZMQ_POLLIN;
        if (pipe != NULL && dk_pipe_wants_write(pipe)) {
            events |= ZMQ_POLLOUT;
        }
        items[OTHERS + i] = (zmq_pollitem_t){.fd = pipe != NULL ? dk_pipe_fd(pipe) : signals,
                                             .events = pipe != NULL ? events : 0};
    }
    double wait = s->wake_ms > 0 ? s->wake_ms - dk_now_ms() : TICK_MS;
    wait = wait < 0 ? 0 : wait < TICK_MS ? wait : TICK_MS;
    zmq_poll(items, OTHERS + s->slot_count, (long)wait);
    read_clients(s);
    dk_scheduler_read_remotes(s);
    *stop = (items[1].revents & ZMQ_POLLIN) != 0;
    for (int i = 0; i < s->slot_count; i++) {
        if (s->slots[i].pipe != NULL && (items[OTHERS + i].revents & ZMQ_POLLOUT) != 0) {
            write_worker(s, &s->slots[i]);
        }
        if (s->slots[i].pipe != NULL && items[OTHERS + i].revents != 0) {
            read_worker(s, &s->slots[i]);
        }
    }
}

static void loop(dk_scheduler *s, int signals)
{
    size_t count = OTHERS + (size_t)s->slot_count;
    zmq_pollitem_t *items = dk_alloc(count * sizeof *items);
    for (bool stop = false; !stop;) {
        wait_and_read(s, signals, items, &stop);
        dk_scheduler_look_around(s);
        dk_scheduler_dispatch(s);
        dk_scheduler_prepare(s);
        dk_scheduler_report_if_due(s);
    }
    dk_free(items);
}

/* Idle workers close their engines; busy ones are ended with what they compute, whose
   checkpoints stay. */
static void end_workers(dk_scheduler *s)
{
    double start = dk_now_ms();
    for (int i = 0; i < s->slot_count; i++) {
        dk_slot_ask_to_end(&s->slots[i]);
    }
    dk_scheduler_end_remotes(s, start + END_MS);
    for (int i = 0; i < s->slot_count; i++) {
        while (s->slots[i].state == DK_SLOT_IDLE && !dk_process_has_ended(&s->slots[i].pid) &&
               dk_now_ms() - start < END_MS) {
            usleep(LOOK_MS * 1000);
        }
    }
}

static void close_all(dk_scheduler *s)
{
    end_workers(s);
    for (int i = 0; i < s->slot_count; i++) {
        dk_slot_release(&s->slots[i]);
    }
    while (s->held != NULL) {
        dk_held_frames *held = s->held;
        s->held = held->next;
        close(held->fd);
        dk_free(held->task);
        dk_free(held);
    }
    dk_scheduler_forget_plans(s);
    dk_free(s->slots);
    dk_queue_destroy(&s->queue);
    dk_link_close(&s->relays);
    dk_link_close(&s->link);
}

static dk_status open_all(dk_scheduler *s, dk_error *err)
{
    const dk_scheduler_setup *setup = s->setup;
    DK_TRY(dk_link_listen(&s->link, setup->endpoint, setup->keys, err));
    s->queue = dk_queue_create();
    s->slot_count = setup->options->replicas;
    s->slots = dk_alloc((size_t)s->slot_count * sizeof *s->slots);
    for (int i = 0; i < s->slot_count; i++) {
        s->slots[i] = (dk_slot){.index = i,
                                .of = setup->cores_of > 0 ? setup->cores_of : s->slot_count,
                                .born_ms = dk_now_ms()};
    }
    return dk_scheduler_open_remotes(s, err);
}

dk_status dk_scheduler_run(const dk_scheduler_setup *setup, dk_error *err)
{
    int signals = -1;
    dk_scheduler s = {.setup = setup, .options = setup->options};
    DK_TRY(dk_process_watch_ends(&signals, err));
    dk_status status = open_all(&s, err);
    if (status == DK_OK) {
        loop(&s, signals);
    }
    close_all(&s);
    close(signals);
    return status;
}
