/* The life of a worker: load, then batch after batch. */
#include "server/worker/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "server/wire/prepare.h"
#include "server/wire/request.h"
#include "server/worker/tell.h"

enum { MAX_BATCH = 64, ALIVE_MS = 500 };

/* A task of the running batch. */
typedef struct item {
    char *task;
    dk_request request;
    dk_cancel *cancel;
    char *checkpoint;
    struct worker *worker;
} item;

typedef struct worker {
    const dk_worker_options *options;
    dk_pipe *pipe;
    _Atomic(dk_engine *) engine; /* NULL until it is open */
    int ended;                   /* eventfd: the computing thread is over */
    pthread_mutex_t lock;
    pthread_cond_t woken;
    /* under the lock: */
    bool stop, batch_waits;
    dk_message batch; /* "run"; the requests' texts are borrowed from it */
    item items[MAX_BATCH];
    int item_count;
    dk_status status;
    dk_error error;
} worker;

/* What is worth a message: not the ends of stages, which the result tells again with their
   times, nor the stages of a moment, nor more steps than an eye follows. */
static bool is_worth_telling(const dk_event *event)
{
    static const char *const moments[] = {"input validation", "timestep preparation",
                                          "latent preparation"};
    bool worth = event->kind != DK_EVENT_STAGE_END;
    for (size_t m = 0; m < sizeof moments / sizeof *moments; m++) {
        worth = worth &&
                (event->kind != DK_EVENT_STAGE_BEGIN || strcmp(event->stage, moments[m]) != 0);
    }
    return worth;
}

static void on_event(void *context, const dk_event *event)
{
    const item *i = context;
    if (is_worth_telling(event)) {
        dk_tell_event(i->worker->pipe, i->task, event);
    }
}

static void release_items(worker *w)
{
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->item_count; i++) {
        dk_free(w->items[i].task);
        dk_free(w->items[i].checkpoint);
        dk_cancel_destroy(&w->items[i].cancel);
    }
    w->item_count = 0;
    dk_message_release(&w->batch);
    w->batch_waits = false;
    pthread_mutex_unlock(&w->lock);
}

static dk_status read_item(worker *w, item *out, const json_t *entry, dk_error *err)
{
    dk_request_init(&out->request, atomic_load(&w->engine));
    DK_TRY(dk_request_from_json(&out->request, json_object_get(entry, "request"), err));
    out->request.num_outputs_per_prompt = 1;
    out->request.dump_tensors = NULL;
    return DK_OK;
}

static void generate(worker *w, item *const *items, int count)
{
    dk_generation generations[MAX_BATCH] = {0};
    for (int i = 0; i < count; i++) {
        generations[i] = (dk_generation){.request = &items[i]->request,
                                         .events = on_event,
                                         .context = items[i],
                                         .cancel = items[i]->cancel,
                                         .checkpoint = items[i]->checkpoint,
                                         .checkpoint_every_s = w->options->checkpoint_every_s,
                                         .previews = true};
    }
    dk_generate_together(atomic_load(&w->engine), generations, count);
    for (int i = 0; i < count; i++) {
        if (generations[i].status == DK_OK) {
            dk_tell_result(w->pipe, items[i]->task, &generations[i].result);
            dk_result_release(&generations[i].result);
        } else if (generations[i].status == DK_DEVICE) {
            w->status = DK_DEVICE;
            w->error = generations[i].error;
        } else {
            dk_tell_error(w->pipe, items[i]->task, &generations[i].error);
        }
    }
}

/* Requests that cannot even be read leave the batch at once. What a lost device was working on
   is answered by the worker's end, after which others, or a new one, go on with it. */
static void run_batch(worker *w)
{
    item *ready[MAX_BATCH];
    int count = 0;
    const json_t *tasks = json_object_get(w->batch.header, "tasks");
    for (int i = 0; i < w->item_count; i++) {
        dk_error error;
        if (read_item(w, &w->items[i], json_array_get(tasks, (size_t)i), &error) == DK_OK) {
            ready[count++] = &w->items[i];
        } else {
            dk_tell_error(w->pipe, w->items[i].task, &error);
        }
    }
    if (count > 0) {
        generate(w, ready, count);
    }
    release_items(w);
    if (w->status == DK_OK) {
        dk_tell_idle(w->pipe);
    } else {
        dk_tell_failed(w->pipe, &w->error);
    }
}

static dk_status open_engine(worker *w)
{
    dk_engine *engine;
    dk_status status = w->options->open(w->options->context, &engine, &w->error);
    if (status != DK_OK) {
        dk_tell_failed(w->pipe, &w->error);
        return status;
    }
    atomic_store(&w->engine, engine);
    if (w->options->introduction != NULL && *w->options->introduction != NULL) {
        dk_tell_introduction(w->pipe, *w->options->introduction);
    }
    dk_tell_ready(w->pipe, engine, w->options->model_name);
    return DK_OK;
}

static void *compute(void *argument)
{
    worker *w = argument;
    w->status = open_engine(w);
    while (w->status == DK_OK) {
        pthread_mutex_lock(&w->lock);
        while (!w->batch_waits && !w->stop) {
            pthread_cond_wait(&w->woken, &w->lock);
        }
        bool stop = w->stop;
        pthread_mutex_unlock(&w->lock);
        if (stop) {
            break;
        }
        run_batch(w);
    }
    const uint64_t one = 1;
    while (write(w->ended, &one, sizeof one) < 0 && errno == EINTR) {
    }
    return NULL;
}

static void add_item(worker *w, const json_t *entry)
{
    const char *checkpoint = json_string_value(json_object_get(entry, "checkpoint"));
    const char *task = json_string_value(json_object_get(entry, "task"));
    w->items[w->item_count++] =
        (item){.task = dk_strdup(task != NULL ? task : ""),
               .cancel = dk_cancel_create(),
               .checkpoint = checkpoint != NULL ? dk_strdup(checkpoint) : NULL,
               .worker = w};
}

static void start_batch(worker *w, dk_message *message)
{
    const json_t *tasks = json_object_get(message->header, "tasks");
    pthread_mutex_lock(&w->lock);
    if (!w->batch_waits) {
        for (size_t i = 0; i < json_array_size(tasks) && i < MAX_BATCH; i++) {
            add_item(w, json_array_get(tasks, i));
        }
        w->batch = *message;
        *message = (dk_message){.fd = -1};
        w->batch_waits = true;
        pthread_cond_signal(&w->woken);
    }
    pthread_mutex_unlock(&w->lock);
}

static void cancel_task(worker *w, const char *task)
{
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->item_count; i++) {
        if (strcmp(w->items[i].task, task) == 0) {
            dk_cancel_request(w->items[i].cancel);
        }
    }
    pthread_mutex_unlock(&w->lock);
}

static void plan(worker *w, const dk_message *message)
{
    dk_engine *engine = atomic_load(&w->engine);
    const json_t *call = json_object_get(message->header, "call");
    dk_request request;
    dk_plan planned;
    dk_error error;
    if (engine == NULL) {
        dk_fail(&error, DK_BUSY, "the model is being loaded");
        dk_tell_no_plan(w->pipe, call, &error);
        return;
    }
    dk_request_init(&request, engine);
    request.prompt = "";
    if (dk_request_from_json(&request, json_object_get(message->header, "request"), &error) !=
            DK_OK ||
        dk_engine_plan(engine, &request, &planned, &error) != DK_OK) {
        dk_tell_no_plan(w->pipe, call, &error);
        return;
    }
    dk_tell_plan(w->pipe, call, &request, dk_request_joins(engine, &request, &request),
                 &planned);
}

static void prepare(worker *w, const dk_message *message)
{
    dk_engine *engine = atomic_load(&w->engine);
    const json_t *object = dk_prepare_request(message);
    dk_request request;
    if (engine != NULL && object != NULL) {
        dk_request_init(&request, engine);
        if (dk_request_from_json(&request, object, NULL) == DK_OK) {
            dk_engine_prepare(engine, &request);
        }
    }
}

static bool take(worker *w, dk_message *message)
{
    const char *type = dk_message_type(message);
    bool goes_on = strcmp(type, "stop") != 0;
    if (strcmp(type, "run") == 0) { /* the computing thread takes, and frees, the message */
        start_batch(w, message);
    } else if (strcmp(type, "cancel") == 0) {
        cancel_task(w, dk_message_text(message, "task"));
    } else if (strcmp(type, "plan") == 0) {
        plan(w, message);
    } else if (strcmp(type, "prepare") == 0) {
        prepare(w, message);
    }
    return goes_on;
}

/* Talks until the scheduler says stop, is gone, or the computing thread failed. */
static void talk(worker *w)
{
    struct pollfd waits[] = {{.fd = dk_pipe_fd(w->pipe), .events = POLLIN},
                             {.fd = w->ended, .events = POLLIN}};
    double told = 0;
    for (bool go_on = true; go_on;) {
        dk_error error;
        bool received = true;
        int woken = poll(waits, 2, ALIVE_MS);
        if (dk_now_ms() - told >= ALIVE_MS) {
            dk_tell_alive(w->pipe, atomic_load(&w->engine));
            told = dk_now_ms();
        }
        go_on = (waits[1].revents & POLLIN) == 0 || woken <= 0;
        while (go_on && received && woken > 0) {
            dk_message message = {.fd = -1};
            if (dk_pipe_receive(w->pipe, &message, &received, &error) != DK_OK) {
                go_on = false;
            } else if (received) {
                go_on = take(w, &message);
                dk_message_release(&message);
            }
        }
    }
}

static void stop(worker *w, pthread_t thread)
{
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    for (int i = 0; i < w->item_count; i++) {
        dk_cancel_request(w->items[i].cancel);
    }
    pthread_cond_signal(&w->woken);
    pthread_mutex_unlock(&w->lock);
    pthread_join(thread, NULL);
    release_items(w);
    dk_engine *engine = atomic_load(&w->engine);
    dk_engine_close(&engine);
}

dk_status dk_worker_run(const dk_worker_options *options, dk_error *err)
{
    worker w = {.options = options,
                .pipe = dk_pipe_create(options->fd, true),
                .ended = eventfd(0, EFD_CLOEXEC),
                .batch = {.fd = -1}};
    pthread_t thread;
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.woken, NULL);
    dk_status status = DK_OK;
    if (w.ended < 0 || pthread_create(&thread, NULL, compute, &w) != 0) {
        status = dk_fail(err, DK_MEMORY, "a worker's thread does not start");
    } else {
        talk(&w);
        stop(&w, thread);
        status = w.status;
        if (status != DK_OK && err != NULL) {
            *err = w.error;
        }
    }
    if (w.ended >= 0) {
        close(w.ended);
    }
    dk_pipe_destroy(&w.pipe);
    pthread_cond_destroy(&w.woken);
    pthread_mutex_destroy(&w.lock);
    return status;
}
