/* darkroom worker: one device's process, started by the scheduler. */
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>

#include "base/process.h"
#include "cli/arguments.h"
#include "cli/models.h"
#include "engine/option_parameters.h"
#include "engine/rank_parameters.h"
#include "server/worker/worker.h"

typedef struct worker_flags {
    int fd, parent_pid, worker_index, worker_count;
    double checkpoint_every_s;
} worker_flags;

static const dk_parameter parameters[] = {
    {.name = "fd",
     .type = DK_PARAMETER_INT,
     .offset = offsetof(worker_flags, fd),
     .min = 3,
     .max = 1024,
     .default_text = "3",
     .help = "the scheduler's socket"},
    {.name = "parent_pid",
     .type = DK_PARAMETER_INT,
     .offset = offsetof(worker_flags, parent_pid),
     .max = INT_MAX,
     .default_text = "none",
     .help = "process that this one shall not outlive"},
    {.name = "worker_index",
     .type = DK_PARAMETER_INT,
     .offset = offsetof(worker_flags, worker_index),
     .max = 1024,
     .default_text = "0",
     .help = "which worker this is"},
    {.name = "worker_count",
     .type = DK_PARAMETER_INT,
     .offset = offsetof(worker_flags, worker_count),
     .min = 1,
     .max = 1024,
     .default_text = "1",
     .help = "of how many that share the cores"},
    {.name = "checkpoint_every_s",
     .type = DK_PARAMETER_REAL,
     .offset = offsetof(worker_flags, checkpoint_every_s),
     .max = 86400,
     .unit = "S",
     .default_text = "10",
     .help = "work that is lost at most when the process is killed"},
};
static const dk_parameter_table worker_parameters = {.title = "Worker",
                                                     .parameters = parameters,
                                                     .count = sizeof parameters /
                                                              sizeof *parameters};

typedef struct opening {
    dk_engine_setup setup;
    dk_progress progress;
} opening;

static dk_status open_engine(void *context, dk_engine **out, dk_error *err)
{
    opening *o = context;
    return dk_engine_setup_open(out, &o->setup, &o->progress, err);
}

/* Replicas share the cores, and each replica's ranks its part. */
static dk_status settle(opening *o, const worker_flags *flags, dk_error *err)
{
    dk_layout layout;
    DK_TRY(dk_ranks_layout(&layout, &o->setup.options, err));
    int ranks = dk_layout_replica_ranks(&layout);
    o->setup.cores = (dk_core_share){flags->worker_index * ranks, flags->worker_count * ranks};
    return dk_engine_setup_join(&o->setup, err);
}

static dk_status run(const dk_arguments *arguments, dk_error *err)
{
    opening o;
    worker_flags flags = {.fd = DK_PROCESS_FD, .worker_count = 1, .checkpoint_every_s = 10};
    dk_engine_setup_init(&o.setup);
    dk_status status = dk_arguments_apply(arguments, &worker_parameters, &flags, err);
    if (status == DK_OK) {
        status = dk_arguments_apply(arguments, &dk_option_parameters, &o.setup.options, err);
    }
    if (status == DK_OK) {
        status = dk_arguments_apply(arguments, &dk_rank_parameters, &o.setup.options, err);
    }
    if (status == DK_OK && fcntl(flags.fd, F_SETFD, FD_CLOEXEC) != 0) {
        status = dk_fail(err, DK_INVALID,
                         "--fd %d is not open: workers are started by the "
                         "scheduler",
                         flags.fd);
    }
    if (status == DK_OK && flags.parent_pid > 0) {
        status = dk_process_bind(flags.parent_pid, err);
    }
    if (status == DK_OK) {
        status = settle(&o, &flags, err);
    }
    if (status == DK_OK) {
        dk_progress_init(&o.progress, o.setup.options.log_level);
        const char *path = o.setup.options.model_path;
        const dk_worker_options options = {.fd = flags.fd,
                                           .checkpoint_every_s = flags.checkpoint_every_s,
                                           .open = open_engine,
                                           .context = &o,
                                           .model_name =
                                               path != NULL ? path : DK_EMBEDDED_MODEL};
        status = dk_worker_run(&options, err);
    }
    dk_engine_setup_release(&o.setup);
    return status;
}

static const dk_flag_group groups[] = {{&worker_parameters, NULL},
                                       {&dk_option_parameters, NULL},
                                       {&dk_rank_parameters, NULL},
                                       {NULL, NULL}};

const dk_command dk_command_worker = {
    .name = "worker",
    .usage = "[flags]",
    .summary = "compute for a scheduler, which starts this process",
    .examples = "darkroom serve --num-gpus 2\n",
    .hidden = true,
    .groups = groups,
    .run = run,
};
