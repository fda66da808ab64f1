/* Flags of the scheduler. */
#include "server/scheduler/scheduler.h"

#define AT(field) .offset = offsetof(dk_scheduler_options, field)

enum { MOST_BATCH = 64 };

static const dk_parameter parameters[] = {
    {.name = "batching_max_size",
     .type = DK_PARAMETER_INT,
     AT(batching_max_size),
     .min = 1,
     .max = MOST_BATCH,
     .default_text = "4",
     .help = "requests that share a pass through the model, where they are alike and it pays"},
    {.name = "batching_delay_ms",
     .type = DK_PARAMETER_REAL,
     AT(batching_delay_ms),
     .max = 60000,
     .unit = "MS",
     .default_text = "0",
     .help = "how long a request may wait for others like it"},
    {.name = "checkpoint_every_s",
     .type = DK_PARAMETER_REAL,
     AT(checkpoint_every_s),
     .max = 86400,
     .unit = "S",
     .default_text = "10",
     .help = "work that a killed worker loses at most; 0: every step is saved"},
    {.name = "watchdog_factor",
     .type = DK_PARAMETER_REAL,
     AT(watchdog_factor),
     .min = 1,
     .max = 1e6,
     .unit = "X",
     .default_text = "10",
     .help = "a worker that shows no sign of life for the planned time of a step times this is "
             "killed"},
    {.name = "watchdog_min_s",
     .type = DK_PARAMETER_REAL,
     AT(watchdog_min_s),
     .min = 0.1,
     .max = 86400,
     .unit = "S",
     .default_text = "60",
     .help = "but not before this time"},
    {.name = "max_retries",
     .type = DK_PARAMETER_INT,
     AT(max_retries),
     .max = 1000,
     .default_text = "3",
     .help = "times that a job is tried again after its worker died"},
};

const dk_parameter_table dk_scheduler_parameters = {
    .title = "Scheduler and workers",
    .parameters = parameters,
    .count = sizeof parameters / sizeof *parameters,
};

void dk_scheduler_options_init(dk_scheduler_options *options)
{
    *options = (dk_scheduler_options){.replicas = 1,
                                      .batching_max_size = 4,
                                      .checkpoint_every_s = 10,
                                      .watchdog_factor = 10,
                                      .watchdog_min_s = 60,
                                      .max_retries = 3};
}
