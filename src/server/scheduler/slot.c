/* Starting, feeding and ending worker processes. */
#include "server/scheduler/slot.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

enum { WORKER_FD = 3, CHILD_FAILED = 127 };

const char *dk_slot_state_name(dk_slot_state state)
{
    static const char *const names[] = {"down", "loading", "idle", "busy"};
    return names[state];
}

/* The share of worker `index` of `of` in the cores that this process may use. */
static void share_cores(int index, int of)
{
    cpu_set_t all, mine;
    CPU_ZERO(&mine);
    if (of < 2 || sched_getaffinity(0, sizeof all, &all) != 0) {
        return;
    }
    int cores = CPU_COUNT(&all), seen = 0;
    int first = cores >= of ? index * cores / of : index % cores;
    int last = cores >= of ? (index + 1) * cores / of : first + 1;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &all)) {
            if (seen >= first && seen < last) {
                CPU_SET(cpu, &mine);
            }
            seen++;
        }
    }
    sched_setaffinity(0, sizeof mine, &mine);
}

/* In the child, between fork and exec: only what is safe there. */
_Noreturn static void become_worker(const dk_slot *slot, const char *const *argv, int fd,
                                    pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(CHILD_FAILED);
    }
    share_cores(slot->index, slot->of);
    if (dup2(fd, WORKER_FD) == WORKER_FD) {
        close_range(WORKER_FD + 1, ~0u, 0);
        execv(argv[0], (char *const *)(uintptr_t)argv);
    }
    _exit(CHILD_FAILED);
}

dk_status dk_slot_start(dk_slot *slot, const char *const *argv, dk_error *err)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        return dk_fail(err, DK_IO, "a socket for worker %d: %s", slot->index, strerror(errno));
    }
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        become_worker(slot, argv, ends[1], parent);
    }
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return dk_fail(err, DK_MEMORY, "worker %d does not start: %s", slot->index,
                       strerror(errno));
    }
    slot->pid = pid;
    slot->pipe = dk_pipe_create(ends[0], false);
    slot->state = DK_SLOT_LOADING;
    slot->sign_ms = dk_now_ms();
    slot->pulse = 0;
    return DK_OK;
}

void dk_slot_kill(dk_slot *slot)
{
    if (slot->pid > 0) {
        kill(slot->pid, SIGKILL);
        while (waitpid(slot->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    if (slot->state == DK_SLOT_BUSY) {
        slot->busy_ms += dk_now_ms() - slot->batch_ms;
    }
    slot->pid = 0;
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
    dk_message_pack(&message, "run", "{s:o}", "tasks", list);
    dk_status status = dk_pipe_send(slot->pipe, &message, err);
    dk_message_release(&message);
    return status;
}

void dk_slot_cancel(dk_slot *slot, const char *id)
{
    dk_message message;
    dk_error ignored;
    dk_message_pack(&message, "cancel", "{s:s}", "task", id);
    if (slot->pipe != NULL && dk_pipe_send(slot->pipe, &message, &ignored) != DK_OK) {
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
