/* Results as JSON: what --json prints and --perf-dump-path writes. */
#ifndef DK_CLI_REPORT_H
#define DK_CLI_REPORT_H

#include <jansson.h>

#include "base/error.h"
#include "darkroom/darkroom.h"

/* What is known about a run besides its results. */
typedef struct dk_run_facts {
    const char *model, *pipeline, *device, *dtype;
    const char *quantization; /* NULL: none */
    double load_ms;           /* until the engine was open */
    double total_ms;          /* from the start of the command */
} dk_run_facts;

/* One prompt's result; files: [outputs] paths, NULL where nothing was saved. Owned. */
json_t *dk_report_result(const char *prompt, const dk_result *result, char *const *files,
                         double ms);

/* The object of --json: `results` is an array of the above, borrowed. Owned. */
json_t *dk_report_run(const dk_run_facts *facts, const json_t *results);

/* The object of --perf-dump-path, in the shape of SGLang's dumps (steps with name and
   duration_ms, denoise_steps_ms, total_duration_ms) with facts about the machine. Owned. */
json_t *dk_report_perf(const dk_run_facts *facts, const json_t *results);

/* Prints an object as one line of stdout. */
void dk_report_print(const json_t *object);

/* Prints one line of stdout; what files say in it cannot steer the terminal. */
void dk_report_line(const char *format, ...) DK_PRINTF(1, 2);

#endif
