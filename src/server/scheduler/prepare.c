/* Telling busy workers which requests they will probably get next, so that they encode the
   prompts while their device denoises. */
#include "server/wire/prepare.h"
#include "server/scheduler/state.h"

enum { FORESIGHT = 64 }; /* tasks that are looked at */

static bool prepares(const dk_slot *slot)
{
    return slot->state == DK_SLOT_BUSY &&
           json_is_true(json_object_get(slot->ready, "prepares"));
}

static int count_told(const dk_slot *slot, dk_task *const *tasks, int count)
{
    int told = 0;
    for (int i = 0; i < count; i++) {
        told += tasks[i]->prepared_by == slot->life;
    }
    return told;
}

static bool is_told(const dk_scheduler *s, const dk_task *task)
{
    bool told = false;
    for (int i = 0; i < s->slot_count; i++) {
        told = told || (prepares(&s->slots[i]) && s->slots[i].life == task->prepared_by);
    }
    return told;
}

/* The worker that will probably be free first among those that know of fewest tasks; NULL: all
   know of a whole batch. */
static dk_slot *slot_for(dk_scheduler *s, dk_task *const *tasks, int count)
{
    dk_slot *found = NULL;
    int fewest = s->options->batching_max_size;
    for (int i = 0; i < s->slot_count; i++) {
        dk_slot *slot = &s->slots[i];
        int told = prepares(slot) ? count_told(slot, tasks, count) : fewest;
        if (told < fewest || (told == fewest && found != NULL && prepares(slot) &&
                              slot->batch_ms < found->batch_ms)) {
            found = slot;
            fewest = told;
        }
    }
    return found;
}

/* What does not arrive costs nothing but time; that a worker is gone is found by reading. */
static void tell(dk_slot *slot, const dk_task *task)
{
    dk_message message;
    if (dk_prepare_pack(&message, task->request)) {
        dk_error ignored;
        dk_status status = dk_slot_send(slot, &message, &ignored);
        (void)status;
        dk_message_release(&message);
    }
}

void dk_scheduler_prepare(dk_scheduler *s)
{
    dk_task *tasks[FORESIGHT];
    bool any = false;
    for (int i = 0; i < s->slot_count; i++) {
        any = any || prepares(&s->slots[i]);
    }
    int count = any && !s->on_hold ? dk_queue_next(s->queue, tasks, FORESIGHT) : 0;
    for (int i = 0; i < count; i++) {
        dk_slot *slot = is_told(s, tasks[i]) ? NULL : slot_for(s, tasks, count);
        if (slot != NULL) {
            tasks[i]->prepared_by = slot->life;
            tell(slot, tasks[i]);
        }
    }
}
