/* Plans: a worker that is up is asked, and the answer goes to who wanted it. */
#include "base/alloc.h"
#include "server/scheduler/state.h"

/* Asked of a worker, not answered yet. */
struct dk_open_plan {
    dk_open_plan *next;
    long number; /* by which the worker answers */
    const dk_slot *slot;
    dk_link_peer peer;
    json_t *call; /* owned: the peer's own name for it; NULL: none */
};

/* Pictures are looked at to plan, and lie in files of this host. */
static bool names_files(const json_t *request)
{
    return json_object_get(request, "image_path") != NULL ||
           json_object_get(request, "mask_path") != NULL;
}

static void refuse(dk_scheduler *s, const dk_link_peer *peer, json_t *call, const char *text)
{
    dk_message answer;
    bool fatal = s->fatal.status != DK_OK;
    dk_message_pack(&answer, "plan", "{s:O*, s:i, s:s}", "call", call, "status",
                    (int)(fatal ? s->fatal.status : DK_BUSY), "message",
                    fatal ? s->fatal.message : text);
    dk_scheduler_send(s, peer, &answer);
}

static bool ask(dk_slot *slot, long number, json_t *request)
{
    dk_message message;
    dk_error error;
    dk_message_pack(&message, "plan", "{s:I, s:O*}", "call", (json_int_t)number, "request",
                    request);
    dk_status status = dk_slot_send(slot, &message, &error);
    dk_message_release(&message);
    return status == DK_OK;
}

void dk_scheduler_plan(dk_scheduler *s, const dk_link_peer *peer, const dk_message *message)
{
    json_t *call = json_object_get(message->header, "call");
    json_t *request = json_object_get(message->header, "request");
    for (int i = 0; i < s->slot_count; i++) {
        dk_slot *slot = &s->slots[i];
        bool reads = slot->relay.link == NULL || !names_files(request);
        bool up = slot->state == DK_SLOT_IDLE || slot->state == DK_SLOT_BUSY;
        if (reads && up && ask(slot, s->plan_number + 1, request)) {
            dk_open_plan *plan = dk_alloc(sizeof *plan);
            *plan = (dk_open_plan){.next = s->plans,
                                   .number = ++s->plan_number,
                                   .slot = slot,
                                   .peer = *peer,
                                   .call = json_incref(call)};
            s->plans = plan;
            return;
        }
    }
    refuse(s, peer, call, "the model is being loaded");
}

/* Takes the plan at `at` out of the list and forgets it. */
static void close_plan(dk_open_plan **at)
{
    dk_open_plan *plan = *at;
    *at = plan->next;
    json_decref(plan->call);
    dk_free(plan);
}

void dk_scheduler_answer_plan(dk_scheduler *s, const dk_slot *slot, dk_message *message)
{
    long number = (long)dk_message_number(message, "call", 0);
    for (dk_open_plan **at = &s->plans; *at != NULL; at = &(*at)->next) {
        const dk_open_plan *plan = *at;
        if (plan->number == number && plan->slot == slot) {
            json_object_set_new(message->header, "call",
                                plan->call != NULL ? json_incref(plan->call) : json_null());
            dk_scheduler_send(s, &plan->peer, message);
            close_plan(at);
            return;
        }
    }
}

void dk_scheduler_lose_plans(dk_scheduler *s, const dk_slot *slot)
{
    for (dk_open_plan **at = &s->plans; *at != NULL;) {
        if ((*at)->slot == slot) {
            refuse(s, &(*at)->peer, (*at)->call, "the worker that was asked has ended");
            close_plan(at);
        } else {
            at = &(*at)->next;
        }
    }
}

void dk_scheduler_forget_plans(dk_scheduler *s)
{
    while (s->plans != NULL) {
        close_plan(&s->plans);
    }
}
