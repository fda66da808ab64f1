/* Flags of the scheduler. */
#include "server/scheduler/scheduler.h"

#define AT(field) .offset = offsetof(dk_scheduler_options, field)

enum { MOST_WORKERS = 64, MOST_BATCH = 64 };

static const dk_parameter parameters[] = {
    {.name = "num_gpus",
     .type = DK_PARAMETER_INT,
     AT(num_gpus),
     .min = 1,
     .max = MOST_WORKERS,
     .default_text = "1",
     .help = "workers; with --device cpu each gets its share of the cores"},
    {.name = "dp_size",
     .type = DK_PARAMETER_INT,
     AT(dp_size),
     .max = MOST_WORKERS,
     .default_text = "num_gpus",
     .help = "replicas that take different requests"},
    {.name = "tp_size",
     .type = DK_PARAMETER_INT,
     AT(tp_size),
     .min = 1,
     .max = MOST_WORKERS,
     .default_text = "1",
     .help = "ranks that share every layer (only 1 so far)"},
    {.name = "sp_degree",
     .type = DK_PARAMETER_INT,
     AT(sp_degree),
     .min = 1,
     .max = MOST_WORKERS,
     .default_text = "1",
     .help = "ranks that share a sequence (only 1 so far)"},
    {.name = "ulysses_degree",
     .type = DK_PARAMETER_INT,
     AT(ulysses_degree),
     .min = 1,
     .max = MOST_WORKERS,
     .default_text = "1",
     .help = "of sp_degree, the ranks that exchange heads (only 1 so far)"},
    {.name = "ring_degree",
     .type = DK_PARAMETER_INT,
     AT(ring_degree),
     .min = 1,
     .max = MOST_WORKERS,
     .default_text = "1",
     .help = "of sp_degree, the ranks that pass keys and values on (only 1 so far)"},
    {.name = "enable_cfg_parallel",
     .type = DK_PARAMETER_BOOL,
     AT(enable_cfg_parallel),
     .default_text = "false",
     .help = "the two halves of guidance on two ranks (only false so far)"},
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
    *options = (dk_scheduler_options){.num_gpus = 1,
                                      .tp_size = 1,
                                      .sp_degree = 1,
                                      .ulysses_degree = 1,
                                      .ring_degree = 1,
                                      .batching_max_size = 4,
                                      .checkpoint_every_s = 10,
                                      .watchdog_factor = 10,
                                      .watchdog_min_s = 60,
                                      .max_retries = 3};
}

dk_status dk_scheduler_options_check(const dk_scheduler_options *options, dk_error *err)
{
    if (options->tp_size != 1 || options->sp_degree != 1 || options->ulysses_degree != 1 ||
        options->ring_degree != 1 || options->enable_cfg_parallel) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "tp_size, sp_degree, ulysses_degree, ring_degree above 1 and "
                       "enable_cfg_parallel are not supported yet: one request runs on one "
                       "worker; accepted are num_gpus and dp_size");
    }
    if (options->dp_size != 0 && options->dp_size != options->num_gpus) {
        return dk_fail(err, DK_INVALID,
                       "dp_size is %d and num_gpus %d: each replica is one worker, accepted is "
                       "dp_size %d",
                       options->dp_size, options->num_gpus, options->num_gpus);
    }
    return DK_OK;
}
