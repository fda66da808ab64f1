/* Jobs in flight: how far they are, and who wants to know. */
#ifndef DK_SERVER_SERVICE_WATCH_H
#define DK_SERVER_SERVICE_WATCH_H

#include <stdbool.h>
#include <stdint.h>

enum { DK_STAGE_BYTES = 32 };

/* How a job stands. */
typedef struct dk_progress_note {
    bool running;
    int percent;
    int output, step, steps; /* of the output that went on last */
    char stage[DK_STAGE_BYTES];
    double eta_s;       /* negative: not known */
    int queue_position; /* 0: next; -1: not queued */
} dk_progress_note;

typedef enum dk_note_kind {
    DK_NOTE_PROGRESS,
    DK_NOTE_PREVIEW,
    DK_NOTE_END, /* the store knows how */
} dk_note_kind;

typedef struct dk_note {
    dk_note_kind kind;
    const char *id;
    dk_progress_note progress;
    const uint8_t *preview; /* [height][width][3], borrowed for the call */
    int width, height;
} dk_note;

typedef bool dk_watch_fn(void *context, const dk_note *note);

/* The table of jobs in flight. */
typedef struct dk_watch dk_watch;
dk_watch *dk_watch_create(void);
/* Everybody who still watches gets END. */
void dk_watch_destroy(dk_watch **watch);

/* A job is in flight from add to end. seconds: expected for one output; 0: not known. */
void dk_watch_add(dk_watch *watch, const char *id, int outputs, int steps, double seconds);
void dk_watch_end(dk_watch *watch, const char *id);
void dk_watch_end_all(dk_watch *watch);
int dk_watch_count(dk_watch *watch);
bool dk_watch_has(dk_watch *watch, const char *id);

/* Told to the watchers: an output went on (step may be 0: a stage began), one was finished, the
   job starts again, a place in the queue. */
void dk_watch_step(dk_watch *watch, const char *id, int output, const char *stage, int step,
                   int steps, double eta_ms);
void dk_watch_output_done(dk_watch *watch, const char *id, int output);
void dk_watch_queued(dk_watch *watch, const char *id, int position, int workers);
void dk_watch_preview(dk_watch *watch, const char *id, int output, const uint8_t *rgb,
                      int width, int height);

bool dk_watch_progress(dk_watch *watch, const char *id, dk_progress_note *out);
void dk_watch_job(dk_watch *watch, const char *id, dk_watch_fn *fn, void *context);

#endif
