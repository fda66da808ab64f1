/* The state of things, told to clients: workers, queue, counters. */
#include <unistd.h>

#include "base/clock.h"
#include "server/scheduler/state.h"

enum { SOONEST_MS = 50, LATEST_MS = 1000, LISTED = 200 };

static json_t *slot_report(const dk_slot *slot)
{
    double now = dk_now_ms();
    double busy = slot->busy_ms + (slot->state == DK_SLOT_BUSY ? now - slot->batch_ms : 0);
    json_t *tasks = json_array();
    for (int i = 0; i < slot->running_count; i++) {
        json_array_append_new(tasks, json_string(slot->running[i]->id));
    }
    return json_pack(
        "{s:i, s:i, s:s*, s:s, s:o, s:f, s:f, s:I, s:I, s:O*, s:O*}", "index", slot->index,
        "pid", dk_slot_pid(slot), "host", slot->relay.link != NULL ? slot->relay.host : NULL,
        "state", dk_slot_state_name(slot->state), "tasks", tasks, "busy_seconds", busy / 1000.0,
        "seconds", (now - slot->born_ms) / 1000.0, "restarts", (json_int_t)slot->restarts,
        "watchdog_kills", (json_int_t)slot->watchdog_kills, "ready", slot->ready, "alive",
        slot->alive);
}

void dk_scheduler_report(dk_scheduler *s, const dk_link_peer *to)
{
    dk_message message;
    json_t *workers = json_array();
    for (int i = 0; i < s->slot_count; i++) {
        json_array_append_new(workers, slot_report(&s->slots[i]));
    }
    dk_message_pack(&message, "report", "{s:i, s:o, s:o, s:i, s:b, s:I, s:I, s:I}", "pid",
                    (int)getpid(), "workers", workers, "queue",
                    dk_queue_order(s->queue, LISTED), "depth", dk_queue_depth(s->queue),
                    "on_hold", s->on_hold, "done", (json_int_t)s->done, "failed",
                    (json_int_t)s->failed, "retried", (json_int_t)s->retried);
    if (s->fatal.status != DK_OK) {
        json_object_set_new(message.header, "fatal",
                            json_pack("{s:i, s:s}", "status", (int)s->fatal.status, "message",
                                      s->fatal.message));
    }
    dk_scheduler_send(s, to, &message);
}

void dk_scheduler_report_if_due(dk_scheduler *s)
{
    double since = dk_now_ms() - s->reported_ms;
    if (since >= LATEST_MS || (s->changed && since >= SOONEST_MS)) {
        for (int i = 0; i < s->peer_count; i++) {
            dk_scheduler_report(s, &s->peers[i]);
        }
        s->changed = false;
        s->reported_ms = dk_now_ms();
    }
}
