/* Which task comes next. */
#include "server/scheduler/queue.h"

#include <string.h>

#include "base/alloc.h"

/* What an owner has had. One that was away comes back with no less than the least that those
   who stayed have had: waiting earns no credit. */
typedef struct account {
    char *owner;
    double seconds;
    int waiting;
} account;

struct dk_queue {
    dk_task *first; /* by order of arrival */
    int depth;
    long next_order;
    account *accounts;
    int account_count;
};

void dk_task_destroy(dk_task **task)
{
    if (*task != NULL) {
        json_decref((*task)->request);
        dk_free((*task)->id);
        dk_free((*task)->signature);
        dk_free((*task)->owner);
        dk_free((*task)->checkpoint);
        dk_free(*task);
        *task = NULL;
    }
}

dk_queue *dk_queue_create(void)
{
    return dk_alloc(sizeof(dk_queue));
}

void dk_queue_destroy(dk_queue **queue)
{
    if (*queue != NULL) {
        dk_queue *q = *queue;
        while (q->first != NULL) {
            dk_task *task = q->first;
            q->first = task->next;
            dk_task_destroy(&task);
        }
        for (int i = 0; i < q->account_count; i++) {
            dk_free(q->accounts[i].owner);
        }
        dk_free(q->accounts);
        dk_free(q);
        *queue = NULL;
    }
}

static account *account_of(dk_queue *queue, const char *owner)
{
    for (int i = 0; i < queue->account_count; i++) {
        if (strcmp(queue->accounts[i].owner, owner) == 0) {
            return &queue->accounts[i];
        }
    }
    size_t count = (size_t)queue->account_count + 1;
    queue->accounts = dk_realloc(queue->accounts, count * sizeof *queue->accounts);
    account *a = &queue->accounts[queue->account_count++];
    *a = (account){.owner = dk_strdup(owner)};
    return a;
}

static void come_back(dk_queue *queue, account *a)
{
    double least = -1;
    for (int i = 0; i < queue->account_count; i++) {
        const account *other = &queue->accounts[i];
        if (other->waiting > 0 && (least < 0 || other->seconds < least)) {
            least = other->seconds;
        }
    }
    if (a->waiting == 0 && least > a->seconds) {
        a->seconds = least;
    }
    a->waiting++;
}

void dk_queue_add(dk_queue *queue, dk_task *task)
{
    if (task->order == 0) {
        task->order = ++queue->next_order;
    }
    dk_task **at = &queue->first;
    while (*at != NULL && (*at)->order < task->order) {
        at = &(*at)->next;
    }
    task->next = *at;
    *at = task;
    queue->depth++;
    come_back(queue, account_of(queue, task->owner));
}

int dk_queue_depth(const dk_queue *queue)
{
    return queue->depth;
}

dk_task *dk_queue_first(const dk_queue *queue)
{
    return queue->first;
}

dk_task *dk_queue_find(const dk_queue *queue, const char *id)
{
    dk_task *task = queue->first;
    while (task != NULL && strcmp(task->id, id) != 0) {
        task = task->next;
    }
    return task;
}

static dk_task *take_out(dk_queue *queue, const dk_task *task)
{
    for (dk_task **at = &queue->first; *at != NULL; at = &(*at)->next) {
        if (*at == task) {
            dk_task *found = *at;
            *at = found->next;
            found->next = NULL;
            queue->depth--;
            account_of(queue, found->owner)->waiting--;
            return found;
        }
    }
    return NULL;
}

static double served(const dk_queue *queue, const char *owner)
{
    for (int i = 0; i < queue->account_count; i++) {
        if (strcmp(queue->accounts[i].owner, owner) == 0) {
            return queue->accounts[i].seconds;
        }
    }
    return 0;
}

static bool goes_before(const dk_queue *queue, const dk_task *a, const dk_task *b)
{
    if (a->priority != b->priority) {
        return a->priority > b->priority;
    }
    double of_a = served(queue, a->owner), of_b = served(queue, b->owner);
    return of_a < of_b || (of_a <= of_b && a->order < b->order);
}

static dk_task *best(const dk_queue *queue, const char *signature)
{
    dk_task *found = NULL;
    for (dk_task *task = queue->first; task != NULL; task = task->next) {
        bool suits = signature == NULL ||
                     (task->signature != NULL && strcmp(task->signature, signature) == 0);
        if (suits && (found == NULL || goes_before(queue, task, found))) {
            found = task;
        }
    }
    return found;
}

static int count_alike(const dk_queue *queue, const char *signature)
{
    int count = 0;
    for (const dk_task *task = queue->first; task != NULL; task = task->next) {
        count += task->signature != NULL && strcmp(task->signature, signature) == 0;
    }
    return count;
}

int dk_queue_take(dk_queue *queue, dk_task **out, int most, double delay_ms, double now_ms,
                  double *wait_ms)
{
    dk_task *next = best(queue, NULL);
    *wait_ms = 0;
    if (next == NULL) {
        return 0;
    }
    if (most > 1 && next->signature != NULL && count_alike(queue, next->signature) < most) {
        double left = next->queued_ms + delay_ms - now_ms;
        if (left > 0) {
            *wait_ms = left;
            return 0;
        }
    }
    int count = 0;
    while (next != NULL && count < most) {
        const char *signature = next->signature;
        out[count++] = take_out(queue, next);
        next = signature != NULL ? best(queue, signature) : NULL;
    }
    return count;
}

dk_task *dk_queue_remove(dk_queue *queue, const char *id)
{
    for (dk_task *task = queue->first; task != NULL; task = task->next) {
        if (strcmp(task->id, id) == 0) {
            return take_out(queue, task);
        }
    }
    return NULL;
}

dk_task *dk_queue_remove_late(dk_queue *queue, double unix_ms)
{
    for (dk_task *task = queue->first; task != NULL; task = task->next) {
        if (task->deadline_ms > 0 && task->deadline_ms < unix_ms) {
            return take_out(queue, task);
        }
    }
    return NULL;
}

void dk_queue_charge(dk_queue *queue, const char *owner, double seconds)
{
    account_of(queue, owner)->seconds += seconds;
}

int dk_queue_next(const dk_queue *queue, dk_task **out, int most)
{
    int count = 0;
    for (dk_task *task = queue->first; task != NULL && most > 0; task = task->next) {
        int at = count < most ? count++ : most;
        for (; at > 0 && goes_before(queue, task, out[at - 1]); at--) {
            if (at < most) {
                out[at] = out[at - 1];
            }
        }
        if (at < most) {
            out[at] = task;
        }
    }
    return count;
}

json_t *dk_queue_order(const dk_queue *queue, int most)
{
    json_t *ids = json_array();
    dk_task **tasks = dk_alloc(((size_t)most + 1) * sizeof *tasks);
    int count = dk_queue_next(queue, tasks, most);
    for (int i = 0; i < count; i++) {
        json_array_append_new(ids, json_string(tasks[i]->id));
    }
    dk_free(tasks);
    return ids;
}
