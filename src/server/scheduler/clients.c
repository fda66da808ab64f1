/* What clients ask the scheduler for. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "server/scheduler/state.h"
#include "server/wire/request.h"

void dk_scheduler_send_to(dk_scheduler *s, dk_link *link, const dk_link_peer *peer,
                          dk_message *message)
{
    dk_error error;
    if (dk_link_send(link, peer, message, &error) != DK_OK) {
        dk_log_warn(s->setup->log, "%s", error.message);
    }
    dk_message_release(message);
}

void dk_scheduler_send(dk_scheduler *s, const dk_link_peer *peer, dk_message *message)
{
    dk_scheduler_send_to(s, s->link, peer, message);
}

void dk_scheduler_reply_error(dk_scheduler *s, const dk_task *task, dk_status status,
                              const char *text)
{
    dk_message message;
    dk_message_pack(&message, "error", "{s:s, s:i, s:s}", "task", task->id, "status",
                    (int)status, "message", text);
    if (s->fatal.status != DK_OK) { /* no fault of the task's: whoever stores it keeps it */
        json_object_set_new(message.header, "fatal", json_true());
    }
    dk_scheduler_send(s, &task->peer, &message);
    s->failed++;
    s->changed = true;
}

static bool same_peer(const dk_link_peer *a, const dk_link_peer *b)
{
    return a->size == b->size && memcmp(a->name, b->name, a->size) == 0;
}

static void say_hello(dk_scheduler *s, const dk_link_peer *peer)
{
    bool known = false;
    for (int i = 0; i < s->peer_count; i++) {
        known = known || same_peer(&s->peers[i], peer);
    }
    if (!known && s->peer_count == DK_SCHEDULER_MAX_PEERS) { /* the oldest says hello again */
        memmove(s->peers, s->peers + 1, (size_t)--s->peer_count * sizeof *s->peers);
    }
    if (!known) {
        s->peers[s->peer_count++] = *peer;
    }
    dk_scheduler_report(s, peer);
}

static char *text_of(const dk_message *message, const char *key)
{
    return dk_strdup(dk_message_text(message, key));
}

static dk_task *find_task(const dk_scheduler *s, const char *id)
{
    dk_task *found = dk_queue_find(s->queue, id);
    for (int i = 0; i < s->slot_count && found == NULL; i++) {
        found = dk_slot_find(&s->slots[i], id);
    }
    return found;
}

static void submit(dk_scheduler *s, const dk_link_peer *peer, const dk_message *message)
{
    const json_t *request = json_object_get(message->header, "request");
    dk_task *task = dk_alloc(sizeof *task);
    bool joins = json_is_true(json_object_get(message->header, "joins"));
    *task = (dk_task){.id = text_of(message, "task"),
                      .peer = *peer,
                      .request = json_incref((json_t *)(uintptr_t)request),
                      .owner = text_of(message, "owner"),
                      .signature =
                          joins && json_is_object(request) ? dk_request_kind(request) : NULL,
                      .priority = (int)dk_message_number(message, "priority", 0),
                      .deadline_ms = dk_message_number(message, "deadline_ms", 0),
                      .step_seconds = dk_message_number(message, "step_seconds", 0),
                      .attempts = (int)dk_message_number(message, "attempts", 0),
                      .queued_ms = dk_now_ms()};
    if (dk_message_text(message, "checkpoint")[0] != '\0') {
        task->checkpoint = text_of(message, "checkpoint");
    }
    const char *wrong = task->id[0] == '\0'        ? "a submitted task has no name"
                        : !json_is_object(request) ? "a submitted task has no request"
                        : s->fatal.status != DK_OK ? s->fatal.message
                                                   : NULL;
    dk_task *known = wrong == NULL ? find_task(s, task->id) : NULL;
    if (known != NULL) { /* submitted again, by a client that was away or in doubt */
        known->peer = *peer;
        dk_task_destroy(&task);
        return;
    }
    if (wrong != NULL) {
        dk_scheduler_reply_error(s, task, DK_INVALID, wrong);
        dk_task_destroy(&task);
        return;
    }
    dk_queue_add(s->queue, task);
    s->changed = true;
}

static void cancel(dk_scheduler *s, const char *id)
{
    dk_task *waiting = dk_queue_remove(s->queue, id);
    if (waiting != NULL) {
        dk_scheduler_reply_error(s, waiting, DK_CANCELLED, "cancelled while it was queued");
        dk_task_destroy(&waiting);
        return;
    }
    for (int i = 0; i < s->slot_count; i++) {
        dk_task *task = dk_slot_find(&s->slots[i], id);
        if (task != NULL) {
            task->cancelled = true;
            dk_slot_cancel(&s->slots[i], id);
        }
    }
}

static void let_go(dk_scheduler *s, const char *id)
{
    for (dk_held_frames **at = &s->held; *at != NULL; at = &(*at)->next) {
        if (strcmp((*at)->task, id) == 0) {
            dk_held_frames *held = *at;
            *at = held->next;
            close(held->fd);
            dk_free(held->task);
            dk_free(held);
            return;
        }
    }
}

void dk_scheduler_take_client_message(dk_scheduler *s, const dk_link_peer *peer,
                                      dk_message *message)
{
    const char *type = dk_message_type(message);
    if (strcmp(type, "hello") == 0) {
        say_hello(s, peer);
    } else if (strcmp(type, "submit") == 0) {
        submit(s, peer, message);
    } else if (strcmp(type, "cancel") == 0) {
        cancel(s, dk_message_text(message, "task"));
    } else if (strcmp(type, "taken") == 0) {
        let_go(s, dk_message_text(message, "task"));
    } else if (strcmp(type, "plan") == 0) {
        dk_scheduler_plan(s, peer, message);
    } else if (strcmp(type, "hold") == 0) {
        s->on_hold = json_is_true(json_object_get(message->header, "on"));
        s->changed = true;
    } else {
        dk_log_warn(s->setup->log, "a client sent '%.40s', which is no message", type);
    }
}
