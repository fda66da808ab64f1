/* Starting, feeding and ending worker processes. */
#include "server/scheduler/slot.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/process.h"
#include "server/scheduler/slot_files.h"
#include "server/scheduler/state.h"

enum { MAX_WORDS = 128, MOST_SLOTS = 1024 };

const char *dk_slot_state_name(dk_slot_state state)
{
    static const char *const names[] = {"down", "loading", "idle", "busy"};
    return names[state];
}

/* The worker's command line: argv and who it is. */
typedef struct dk_command_words {
    const char *words[MAX_WORDS + 4];
    char index[32], of[32], parent[32];
} dk_command_words;

static void name_child(dk_command_words *out, const dk_slot *slot, const char *const *argv)
{
    int count = 0;
    for (; count < MAX_WORDS && argv[count] != NULL; count++) {
        out->words[count] = argv[count];
    }
    snprintf(out->index, sizeof out->index, "--worker-index=%d", slot->index);
    snprintf(out->of, sizeof out->of, "--worker-count=%d", slot->of);
    snprintf(out->parent, sizeof out->parent, "--parent-pid=%d", (int)getpid());
    out->words[count++] = out->index;
    out->words[count++] = out->of;
    out->words[count++] = out->parent;
    out->words[count] = NULL;
}

bool dk_slot_may_start(const dk_slot *slot)
{
    return slot->relay.link == NULL || slot->relay.peer.size > 0;
}

dk_status dk_slot_send(dk_slot *slot, dk_message *message, dk_error *err)
{
    if (slot->relay.link == NULL) {
        return slot->pipe != NULL ? dk_pipe_send(slot->pipe, message, err)
                                  : dk_fail(err, DK_IO, "worker %d is down", slot->index);
    }
    if (!dk_slot_may_start(slot)) {
        return dk_fail(err, DK_IO, "worker %d is down", slot->index);
    }
    json_object_set_new(message->header, "life", json_integer(slot->life));
    return dk_link_send(slot->relay.link, &slot->relay.peer, message, err);
}

/* A message that is a word. What does not arrive is found out by the silence that follows. */
static void say(dk_slot *slot, const char *word)
{
    dk_message message;
    dk_error ignored;
    dk_message_init(&message, word);
    dk_status status = dk_slot_send(slot, &message, &ignored);
    (void)status;
    dk_message_release(&message);
}

static dk_status start_process(dk_slot *slot, const char *const *argv, dk_error *err)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        return dk_fail(err, DK_IO, "a socket for worker %d: %s", slot->index, strerror(errno));
    }
    dk_command_words words;
    name_child(&words, slot, argv);
    dk_status status = dk_process_start(&slot->pid, words.words, ends[1], false, err);
    close(ends[1]);
    if (status != DK_OK) {
        close(ends[0]);
        return status;
    }
    slot->pipe = dk_pipe_create(ends[0], false);
    return DK_OK;
}

dk_status dk_slot_start(dk_slot *slot, const char *const *argv, dk_error *err)
{
    slot->life = (json_int_t)dk_unix_ms() * MOST_SLOTS + slot->index;
    if (slot->relay.link != NULL) {
        say(slot, "start");
    } else {
        DK_TRY(start_process(slot, argv, err));
    }
    slot->state = DK_SLOT_LOADING;
    slot->sign_ms = dk_now_ms();
    slot->pulse = 0;
    return DK_OK;
}

void dk_slot_kill(dk_slot *slot)
{
    if (slot->relay.link != NULL && slot->state != DK_SLOT_DOWN) {
        say(slot, "kill");
    }
    dk_process_kill(&slot->pid);
    if (slot->state == DK_SLOT_BUSY) {
        slot->busy_ms += dk_now_ms() - slot->batch_ms;
    }
    slot->state = DK_SLOT_DOWN;
    dk_pipe_destroy(&slot->pipe);
    json_decref(slot->alive);
    slot->alive = NULL;
}

void dk_slot_release(dk_slot *slot)
{
    dk_slot_kill(slot);
    for (int i = 0; i < slot->running_count; i++) {
        dk_task_destroy(&slot->running[i]);
    }
    json_decref(slot->ready);
    *slot = (dk_slot){0};
}

void dk_slot_ask_to_end(dk_slot *slot)
{
    dk_message message;
    if (slot->relay.link != NULL) {
        say(slot, "end");
    } else if (slot->state == DK_SLOT_IDLE) {
        dk_error ignored;
        dk_message_pack(&message, "stop", "{}");
        if (dk_pipe_send(slot->pipe, &message, &ignored) != DK_OK) {
            dk_slot_kill(slot);
        }
        dk_message_release(&message);
    }
}

dk_status dk_slot_run(dk_slot *slot, dk_task *const *tasks, int count, dk_error *err)
{
    dk_message message;
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        slot->running[i] = tasks[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:O, s:s*}", "task", tasks[i]->id, "request",
                                        tasks[i]->request, "checkpoint", tasks[i]->checkpoint));
    }
    slot->running_count = slot->batch_size = count;
    slot->state = DK_SLOT_BUSY;
    slot->batch_ms = slot->sign_ms = dk_now_ms();
    dk_message_pack(&message, "run", "{s:o, s:b}", "tasks", list, "sent", slot->relay.blind);
    dk_status status = slot->relay.blind ? dk_slot_send_files(slot, tasks, count, err) : DK_OK;
    if (status == DK_OK) {
        status = dk_slot_send(slot, &message, err);
    }
    dk_message_release(&message);
    return status;
}

void dk_slot_cancel(dk_slot *slot, const char *id)
{
    dk_message message;
    dk_error ignored;
    dk_message_pack(&message, "cancel", "{s:s}", "task", id);
    if (slot->state != DK_SLOT_DOWN && dk_slot_send(slot, &message, &ignored) != DK_OK) {
        slot->sign_ms = 0; /* gone: the watchdog finds it at once */
    }
    dk_message_release(&message);
}

dk_task *dk_slot_find(const dk_slot *slot, const char *id)
{
    for (int i = 0; i < slot->running_count; i++) {
        if (strcmp(slot->running[i]->id, id) == 0) {
            return slot->running[i];
        }
    }
    return NULL;
}

dk_task *dk_slot_take(dk_slot *slot, const char *id)
{
    dk_task *task = dk_slot_find(slot, id);
    for (int i = 0; i < slot->running_count; i++) {
        if (slot->running[i] == task) {
            slot->running[i] = slot->running[--slot->running_count];
            break;
        }
    }
    return task;
}

double dk_slot_patience(const dk_slot *slot, double factor, double least_s)
{
    double seconds = 0;
    for (int i = 0; i < slot->running_count; i++) {
        seconds += slot->running[i]->step_seconds * factor;
    }
    return 1000.0 * (seconds > least_s ? seconds : least_s);
}
