/* What a command tells while it works: on a terminal one line that is drawn again and again,
   else plain lines. Everything goes to stderr. */
#ifndef DK_CLI_PROGRESS_H
#define DK_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "darkroom/darkroom.h"

typedef struct dk_progress {
    dk_log_level level;
    bool terminal;   /* stderr can move the cursor */
    bool drawn;      /* a bar stands on the terminal's line */
    char prefix[32]; /* "prompt 2/5: ", or empty */
    double told_ms;  /* when the last plain line about bytes was written */
    bool told_end;   /* that line said that all bytes are there */
} dk_progress;

void dk_progress_init(dk_progress *progress, dk_log_level level);
void dk_progress_end(dk_progress *progress); /* clears the bar */

/* The callbacks; `progress` is a dk_progress. */
void dk_progress_event(void *progress, const dk_event *event);
void dk_progress_bytes(void *progress, const char *file, uint64_t done, uint64_t total);
void dk_progress_log(void *progress, dk_log_level level, const char *line);

#endif
