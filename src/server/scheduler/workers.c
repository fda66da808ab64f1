/* What workers tell, and what becomes of them. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/string.h"
#include "server/scheduler/state.h"

enum { LONGEST_PAUSE_MS = 30000, FIRST_PAUSE_MS = 100, HOPELESS = 5 };

double dk_unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static void forward_event(dk_scheduler *s, const dk_slot *slot, dk_message *message)
{
    const dk_task *task = dk_slot_find(slot, dk_message_text(message, "task"));
    if (task != NULL) {
        dk_scheduler_send(s, &task->peer, message);
    }
}

/* A task leaves its worker: its owner has had that part of the device's time. Owned; NULL: it
   is not there. */
static dk_task *take_off(dk_scheduler *s, dk_slot *slot, const char *id)
{
    dk_task *task = dk_slot_take(slot, id);
    if (task != NULL && slot->batch_size > 0) {
        double ms = dk_now_ms() - slot->batch_ms;
        dk_queue_charge(s->queue, task->owner, ms / 1000.0 / slot->batch_size);
    }
    return task;
}

static void hold_frames(dk_scheduler *s, const dk_task *task, dk_message *message)
{
    dk_held_frames *held = dk_alloc(sizeof *held);
    char path[64];
    *held = (dk_held_frames){.task = dk_strdup(task->id), .fd = message->fd, .next = s->held};
    s->held = held;
    message->fd = -1;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), held->fd);
    json_object_set_new(message->header, "frames_path", json_string(path));
}

/* On this host frames go to the peer as the name of a file that this process holds open. */
static void forward_result(dk_scheduler *s, dk_slot *slot, dk_message *message)
{
    dk_task *task = take_off(s, slot, dk_message_text(message, "task"));
    if (task == NULL || message->fd < 0) {
        if (task != NULL) {
            dk_scheduler_reply_error(s, task, DK_INTERNAL, "a result came without frames");
            dk_task_destroy(&task);
        }
        return;
    }
    dk_error error;
    if (!dk_starts_with(s->setup->endpoint, "tcp://")) {
        hold_frames(s, task, message);
    } else if (dk_message_take_in(message, &error) != DK_OK) {
        dk_scheduler_reply_error(s, task, error.status, error.message);
        dk_task_destroy(&task);
        return;
    }
    json_object_set_new(message->header, "worker", json_integer(slot->index));
    json_object_set_new(message->header, "engine_ms", json_real(dk_now_ms() - slot->batch_ms));
    json_object_del(message->header, "with_fd");
    dk_scheduler_send(s, &task->peer, message);
    dk_task_destroy(&task);
    s->done++;
    s->changed = true;
}

static void forward_error(dk_scheduler *s, dk_slot *slot, const dk_message *message)
{
    dk_task *task = take_off(s, slot, dk_message_text(message, "task"));
    if (task == NULL) {
        return;
    }
    dk_status status = (dk_status)dk_message_number(message, "status", DK_INTERNAL);
    if (task->late) {
        dk_scheduler_reply_error(s, task, DK_TIMEOUT, "timeout_s passed while it was running");
    } else {
        dk_scheduler_reply_error(s, task, status, dk_message_text(message, "message"));
    }
    dk_task_destroy(&task);
}

static void become_idle(dk_scheduler *s, dk_slot *slot)
{
    while (slot->running_count > 0) {
        dk_task *task = dk_slot_take(slot, slot->running[0]->id);
        dk_scheduler_reply_error(s, task, DK_INTERNAL, "the worker gave no answer");
        dk_task_destroy(&task);
    }
    if (slot->state == DK_SLOT_BUSY) {
        slot->busy_ms += dk_now_ms() - slot->batch_ms;
    }
    slot->state = DK_SLOT_IDLE;
    s->changed = true;
}

static const char *ready_text(const dk_slot *slot, const char *key)
{
    const char *text = json_string_value(json_object_get(slot->ready, key));
    return text != NULL ? text : "";
}

/* A replica elsewhere that makes other pictures than the server's own is sent away. */
static void look_at_models(dk_scheduler *s)
{
    const dk_slot *own = &s->slots[0];
    for (int i = 1; i < s->slot_count; i++) {
        dk_slot *slot = &s->slots[i];
        char why[512];
        if (own->ready == NULL || slot->ready == NULL || slot->relay.link == NULL ||
            strcmp(ready_text(own, "identity"), ready_text(slot, "identity")) == 0) {
            continue;
        }
        snprintf(
            why, sizeof why,
            "replica %d has model_path '%s' and dtype %s, replica 0 has '%s' and %s: replicas "
            "take the same model files, dtype and quantization",
            i, ready_text(slot, "model"), ready_text(slot, "dtype"), ready_text(own, "model"),
            ready_text(own, "dtype"));
        dk_scheduler_send_away(s, slot, why);
    }
}

static void become_ready(dk_scheduler *s, dk_slot *slot, const dk_message *message)
{
    json_decref(slot->ready);
    slot->ready = json_incref(message->header);
    slot->failures = 0;
    s->was_ready = true;
    become_idle(s, slot);
    dk_log_info(s->setup->log, "worker %d (pid %d) is ready: %s", slot->index,
                dk_slot_pid(slot), dk_message_text(message, "device"));
    look_at_models(s);
}

static void note_fatal(dk_scheduler *s, dk_status status, const char *text)
{
    s->fatal.status = status != DK_OK ? status : DK_INTERNAL;
    snprintf(s->fatal.message, sizeof s->fatal.message, "%s", text);
    for (dk_task *task; (task = dk_queue_first(s->queue)) != NULL;) {
        task = dk_queue_remove(s->queue, task->id);
        dk_scheduler_reply_error(s, task, s->fatal.status, s->fatal.message);
        dk_task_destroy(&task);
    }
    s->changed = true;
}

/* A sign of life of a busy worker is that its engine went on; of a loading one, that it talks.
 */
static void note_alive(dk_slot *slot, const dk_message *message)
{
    double pulse = dk_message_number(message, "pulse", 0);
    if (slot->state != DK_SLOT_BUSY || pulse > slot->pulse) {
        slot->sign_ms = dk_now_ms();
    }
    slot->pulse = pulse;
    json_decref(slot->alive);
    slot->alive = json_incref(message->header);
}

/* A worker is about to end. What is wrong with a model or a device stays wrong; ranks that were
   lost, and networks, come again: those workers are started again, so often. So are those of
   other hosts, since what is wrong with one is not wrong with all. */
static void take_failure(dk_scheduler *s, const dk_slot *slot, const dk_message *message)
{
    dk_status status = (dk_status)dk_message_number(message, "status", DK_INTERNAL);
    const char *text = dk_message_text(message, "message");
    bool comes_again = status == DK_TIMEOUT || status == DK_NETWORK;
    if (!s->was_ready && !comes_again && (slot->relay.link == NULL || s->setup->once)) {
        note_fatal(s, status, text);
        return;
    }
    s->failure.status = status;
    snprintf(s->failure.message, sizeof s->failure.message, "%s", text);
    dk_log_warn(s->setup->log, "worker %d (pid %d): %s", slot->index, dk_slot_pid(slot), text);
}

void dk_scheduler_take_worker_message(dk_scheduler *s, dk_slot *slot, dk_message *message)
{
    const char *type = dk_message_type(message);
    if (strcmp(type, "alive") == 0) {
        note_alive(slot, message);
        return;
    }
    slot->sign_ms = dk_now_ms();
    if (strcmp(type, "event") == 0) {
        forward_event(s, slot, message);
    } else if (strcmp(type, "result") == 0) {
        forward_result(s, slot, message);
    } else if (strcmp(type, "error") == 0) {
        forward_error(s, slot, message);
    } else if (strcmp(type, "idle") == 0) {
        become_idle(s, slot);
    } else if (strcmp(type, "ready") == 0) {
        become_ready(s, slot, message);
    } else if (strcmp(type, "plan") == 0) {
        dk_scheduler_answer_plan(s, slot, message);
    } else if (strcmp(type, "failed") == 0) {
        take_failure(s, slot, message);
    }
}

static void tell_started(dk_scheduler *s, const dk_slot *slot, const dk_task *task,
                         const char *type)
{
    dk_message message;
    dk_message_pack(&message, type, "{s:s, s:i, s:i, s:f}", "task", task->id, "worker",
                    slot->index, "attempts", task->attempts, "waited_ms",
                    dk_now_ms() - task->queued_ms);
    dk_scheduler_send(s, &task->peer, &message);
}

/* A task whose worker died is tried again, unless nobody wants it or it was tried too often. */
static void give_back(dk_scheduler *s, dk_slot *slot, dk_task *task, const char *why)
{
    char text[256];
    task->attempts++;
    if (task->cancelled) {
        dk_scheduler_reply_error(s, task, DK_CANCELLED, "cancelled while it was running");
    } else if (task->late) {
        dk_scheduler_reply_error(s, task, DK_TIMEOUT, "timeout_s passed while it was running");
    } else if (task->attempts > s->options->max_retries) {
        snprintf(text, sizeof text, "worker %d %s; that was attempt %d of %d", slot->index, why,
                 task->attempts, s->options->max_retries + 1);
        dk_scheduler_reply_error(s, task, DK_DEVICE, text);
    } else {
        tell_started(s, slot, task, "lost");
        s->retried++;
        dk_queue_add(s->queue, task);
        return;
    }
    dk_task_destroy(&task);
}

/* Other ranks came with the lost worker and are gone with it. Tasks stay where they are stored.
 */
static void give_up(dk_scheduler *s, const char *why)
{
    char text[sizeof s->fatal.message];
    const char *told = s->failure.status != DK_OK ? s->failure.message : why;
    snprintf(text, sizeof text,
             "the rank that leads: %.*s; whoever started the ranks has to start them again",
             (int)(sizeof text - 128), told);
    note_fatal(s, s->failure.status != DK_OK ? s->failure.status : DK_DEVICE, text);
}

void dk_scheduler_lose_worker(dk_scheduler *s, dk_slot *slot, const char *why)
{
    dk_log_warn(s->setup->log, "worker %d (pid %d) %s", slot->index, dk_slot_pid(slot), why);
    bool loading = slot->state == DK_SLOT_LOADING;
    dk_slot_kill(slot);
    slot->restarts++;
    slot->failures = loading ? slot->failures + 1 : 0;
    double pause = FIRST_PAUSE_MS * (double)(1 << (slot->failures < 9 ? slot->failures : 9));
    slot->restart_ms = dk_now_ms() + (pause < LONGEST_PAUSE_MS ? pause : LONGEST_PAUSE_MS);
    if (!s->was_ready && slot->failures >= HOPELESS && slot->relay.link == NULL &&
        s->fatal.status == DK_OK) {
        bool told = s->failure.status != DK_OK;
        note_fatal(s, told ? s->failure.status : DK_DEVICE,
                   told ? s->failure.message : "the workers end while they open the model");
    }
    while (slot->running_count > 0) {
        give_back(s, slot, take_off(s, slot, slot->running[0]->id), why);
    }
    if (s->setup->once && s->fatal.status == DK_OK) {
        give_up(s, why);
    }
    dk_scheduler_lose_plans(s, slot);
    s->changed = true;
}

void dk_scheduler_take_back(dk_scheduler *s, dk_slot *slot)
{
    slot->relay.blind = true;
    while (slot->running_count > 0) {
        dk_task *task = take_off(s, slot, slot->running[0]->id);
        if (task->cancelled) {
            dk_scheduler_reply_error(s, task, DK_CANCELLED, "cancelled while it was queued");
            dk_task_destroy(&task);
        } else {
            dk_queue_add(s->queue, task);
        }
    }
    become_idle(s, slot);
}

static void start_batch(dk_scheduler *s, dk_slot *slot, dk_task *const *tasks, int count)
{
    dk_error error;
    for (int i = 0; i < count; i++) {
        tell_started(s, slot, tasks[i], "started");
    }
    if (dk_slot_run(slot, tasks, count, &error) != DK_OK) {
        dk_scheduler_lose_worker(s, slot, "does not listen");
    }
    s->changed = true;
}

void dk_scheduler_dispatch(dk_scheduler *s)
{
    s->wake_ms = 0;
    for (int i = 0; i < s->slot_count && !s->on_hold; i++) {
        dk_slot *slot = &s->slots[i];
        if (slot->state != DK_SLOT_IDLE) {
            continue;
        }
        dk_task *tasks[DK_SLOT_MAX_BATCH];
        double wait;
        int count = dk_queue_take(s->queue, tasks, s->options->batching_max_size,
                                  s->options->batching_delay_ms, dk_now_ms(), &wait);
        if (count > 0) {
            start_batch(s, slot, tasks, count);
        } else if (wait > 0) {
            s->wake_ms = dk_now_ms() + wait;
        }
    }
}

static void look_at_deadlines(dk_scheduler *s)
{
    double now = dk_unix_ms();
    for (dk_task *task; (task = dk_queue_remove_late(s->queue, now)) != NULL;) {
        dk_scheduler_reply_error(s, task, DK_TIMEOUT, "timeout_s passed while it was queued");
        dk_task_destroy(&task);
    }
    for (int i = 0; i < s->slot_count; i++) {
        for (int t = 0; t < s->slots[i].running_count; t++) {
            dk_task *task = s->slots[i].running[t];
            if (task->deadline_ms > 0 && task->deadline_ms < now && !task->late) {
                task->late = true;
                dk_slot_cancel(&s->slots[i], task->id);
            }
        }
    }
}

static void look_at_slot(dk_scheduler *s, dk_slot *slot)
{
    dk_error error;
    double now = dk_now_ms();
    if (slot->state == DK_SLOT_DOWN && now >= slot->restart_ms && dk_slot_may_start(slot) &&
        s->fatal.status == DK_OK) {
        if (dk_slot_start(slot, s->setup->worker_argv, &error) != DK_OK) {
            dk_log_warn(s->setup->log, "%s", error.message);
            slot->restart_ms = now + LONGEST_PAUSE_MS;
        }
        return;
    }
    double patience =
        dk_slot_patience(slot, s->options->watchdog_factor, s->options->watchdog_min_s);
    if (slot->state != DK_SLOT_DOWN && now - slot->sign_ms > patience) {
        slot->watchdog_kills++;
        dk_scheduler_lose_worker(s, slot, "showed no sign of life and was killed");
    }
}

void dk_scheduler_look_around(dk_scheduler *s)
{
    look_at_deadlines(s);
    dk_scheduler_look_at_remotes(s);
    for (int i = 0; i < s->slot_count; i++) {
        look_at_slot(s, &s->slots[i]);
    }
}
