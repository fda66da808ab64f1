/* The table of jobs in flight and their watchers. */
#include "server/service/watch.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

typedef struct watcher {
    dk_watch_fn *fn;
    void *context;
    struct watcher *next;
} watcher;

typedef struct flight {
    char *id;
    int outputs, steps; /* steps of each output */
    int *step;          /* [outputs] */
    bool *is_done;      /* [outputs] */
    double seconds;
    dk_progress_note note;
    watcher *watchers;
    struct flight *next;
} flight;

enum { BUCKETS = 1024, OUTPUT_DONE = -1 };

struct dk_watch {
    pthread_mutex_t lock;
    flight *buckets[BUCKETS];
    int count;
};

dk_watch *dk_watch_create(void)
{
    dk_watch *watch = dk_alloc(sizeof *watch);
    pthread_mutex_init(&watch->lock, NULL);
    return watch;
}

/* FNV-1a. */
static unsigned bucket_of(const char *id)
{
    unsigned hash = 2166136261u;
    for (; *id != '\0'; id++) {
        hash = (hash ^ (unsigned char)*id) * 16777619u;
    }
    return hash % BUCKETS;
}

static flight **place_of(dk_watch *watch, const char *id)
{
    flight **at = &watch->buckets[bucket_of(id)];
    while (*at != NULL && strcmp((*at)->id, id) != 0) {
        at = &(*at)->next;
    }
    return at;
}

void dk_watch_add(dk_watch *watch, const char *id, int outputs, int steps, double seconds)
{
    pthread_mutex_lock(&watch->lock);
    flight **at = place_of(watch, id);
    if (*at == NULL) {
        flight *f = dk_alloc(sizeof *f);
        *f = (flight){.id = dk_strdup(id),
                      .outputs = outputs,
                      .steps = steps > 0 ? steps : 1,
                      .step = dk_alloc((size_t)outputs * sizeof(int)),
                      .is_done = dk_alloc((size_t)outputs * sizeof(bool)),
                      .seconds = seconds,
                      .note = {.eta_s = -1, .queue_position = -1}};
        *at = f;
        watch->count++;
    }
    pthread_mutex_unlock(&watch->lock);
}

/* Outside the lock: END may call the service. */
static void tell_end(flight *f)
{
    const dk_note note = {.kind = DK_NOTE_END, .id = f->id, .progress = f->note};
    while (f->watchers != NULL) {
        watcher *w = f->watchers;
        f->watchers = w->next;
        w->fn(w->context, &note);
        dk_free(w);
    }
    dk_free(f->id);
    dk_free(f->step);
    dk_free(f->is_done);
    dk_free(f);
}

void dk_watch_end(dk_watch *watch, const char *id)
{
    pthread_mutex_lock(&watch->lock);
    flight **at = place_of(watch, id), *f = *at;
    if (f != NULL) {
        *at = f->next;
        watch->count--;
    }
    pthread_mutex_unlock(&watch->lock);
    if (f != NULL) {
        tell_end(f);
    }
}

void dk_watch_end_all(dk_watch *watch)
{
    for (int i = 0; i < BUCKETS; i++) {
        pthread_mutex_lock(&watch->lock);
        flight *f = watch->buckets[i];
        watch->buckets[i] = NULL;
        pthread_mutex_unlock(&watch->lock);
        while (f != NULL) {
            flight *next = f->next;
            tell_end(f);
            f = next;
        }
    }
    pthread_mutex_lock(&watch->lock);
    watch->count = 0;
    pthread_mutex_unlock(&watch->lock);
}

void dk_watch_destroy(dk_watch **watch)
{
    if (*watch != NULL) {
        dk_watch_end_all(*watch);
        pthread_mutex_destroy(&(*watch)->lock);
        dk_free(*watch);
        *watch = NULL;
    }
}

int dk_watch_count(dk_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    int count = watch->count;
    pthread_mutex_unlock(&watch->lock);
    return count;
}

bool dk_watch_has(dk_watch *watch, const char *id)
{
    dk_progress_note ignored;
    return dk_watch_progress(watch, id, &ignored);
}

/* With the lock held. */
static void tell(flight *f, const dk_note *note)
{
    for (watcher **at = &f->watchers; *at != NULL;) {
        watcher *w = *at;
        if (w->fn(w->context, note)) {
            at = &w->next;
        } else {
            *at = w->next;
            dk_free(w);
        }
    }
}

/* All but the last percent is steps: what comes before and after them is short. */
static void count_percent(flight *f)
{
    int done = 0;
    for (int i = 0; i < f->outputs; i++) {
        int step = f->step[i] < f->steps ? f->step[i] : f->steps - 1;
        done += f->is_done[i] ? f->steps : step;
    }
    int percent = (int)(100.0 * done / ((double)f->outputs * f->steps));
    f->note.percent = percent < 99 ? percent : 99;
}

void dk_watch_step(dk_watch *watch, const char *id, int output, const char *stage, int step,
                   int steps, double eta_ms)
{
    pthread_mutex_lock(&watch->lock);
    flight *f = *place_of(watch, id);
    if (f != NULL && output >= 0 && output < f->outputs) {
        f->note.running = true;
        f->note.queue_position = -1;
        f->note.output = output;
        snprintf(f->note.stage, sizeof f->note.stage, "%s", stage);
        if (step > 0) {
            f->steps = steps;
            f->step[output] = step;
            f->note.eta_s = eta_ms / 1000.0;
        }
        f->note.step = f->step[output];
        f->note.steps = f->steps;
        count_percent(f);
        tell(f, &(dk_note){.kind = DK_NOTE_PROGRESS, .id = id, .progress = f->note});
    }
    pthread_mutex_unlock(&watch->lock);
}

void dk_watch_output_done(dk_watch *watch, const char *id, int output)
{
    pthread_mutex_lock(&watch->lock);
    flight *f = *place_of(watch, id);
    if (f != NULL && output >= 0 && output < f->outputs && !f->is_done[output]) {
        f->is_done[output] = true;
        count_percent(f);
    }
    pthread_mutex_unlock(&watch->lock);
}

void dk_watch_queued(dk_watch *watch, const char *id, int position, int workers)
{
    pthread_mutex_lock(&watch->lock);
    flight *f = *place_of(watch, id);
    if (f != NULL && !f->note.running && f->note.queue_position != position) {
        f->note.queue_position = position;
        if (f->seconds > 0 && workers > 0) {
            f->note.eta_s = f->seconds * (f->outputs + position / (double)workers);
        }
        tell(f, &(dk_note){.kind = DK_NOTE_PROGRESS, .id = id, .progress = f->note});
    }
    pthread_mutex_unlock(&watch->lock);
}

void dk_watch_preview(dk_watch *watch, const char *id, int output, const uint8_t *rgb,
                      int width, int height)
{
    pthread_mutex_lock(&watch->lock);
    flight *f = *place_of(watch, id);
    if (f != NULL) {
        dk_note note = {.kind = DK_NOTE_PREVIEW,
                        .id = id,
                        .progress = f->note,
                        .preview = rgb,
                        .width = width,
                        .height = height};
        note.progress.output = output;
        tell(f, &note);
    }
    pthread_mutex_unlock(&watch->lock);
}

bool dk_watch_progress(dk_watch *watch, const char *id, dk_progress_note *out)
{
    pthread_mutex_lock(&watch->lock);
    const flight *f = *place_of(watch, id);
    if (f != NULL) {
        *out = f->note;
    }
    pthread_mutex_unlock(&watch->lock);
    return f != NULL;
}

void dk_watch_job(dk_watch *watch, const char *id, dk_watch_fn *fn, void *context)
{
    pthread_mutex_lock(&watch->lock);
    flight *f = *place_of(watch, id);
    if (f != NULL) {
        watcher **at = &f->watchers;
        while (*at != NULL) {
            at = &(*at)->next;
        }
        *at = dk_alloc(sizeof **at);
        **at = (watcher){.fn = fn, .context = context};
    }
    pthread_mutex_unlock(&watch->lock);
    if (f == NULL) {
        fn(context, &(dk_note){.kind = DK_NOTE_END, .id = id});
    }
}
