/* darkroom worker: one device's process, started by the scheduler, or by a relay for one that
   is elsewhere. */
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>

#include "base/alloc.h"
#include "base/process.h"
#include "cli/arguments.h"
#include "cli/models.h"
#include "engine/option_parameters.h"
#include "engine/rank_parameters.h"
#include "engine/ranks.h"
#include "server/wire/introduction.h"
#include "server/worker/worker.h"

typedef struct worker_flags {
    int fd, parent_pid, worker_index, worker_count;
    double checkpoint_every_s;
    const char *introduction;
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
    {.name = "introduction",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(worker_flags, introduction),
     .max = 4096,
     .unit = "FILE",
     .default_text = "none",
     .help = "what the other replicas of MPI's world are told, see darkroom scheduler"},
};
static const dk_parameter_table worker_parameters = {.title = "Worker",
                                                     .parameters = parameters,
                                                     .count = sizeof parameters /
                                                              sizeof *parameters};

typedef struct opening {
    dk_engine_setup setup;
    dk_progress progress;
    const char *introduction; /* borrowed */
    char *told;               /* owned; NULL: nothing */
} opening;

/* Where MPI connects several replicas, their leaders learn where the first one's scheduler is.
 */
static dk_status announce(opening *o, dk_engine *engine, dk_error *err)
{
    dk_introduction i = {0};
    bool is_empty = true;
    dk_string text = DK_STRING_EMPTY;
    if (o->introduction != NULL) {
        DK_TRY(dk_introduction_load(&i, &is_empty, o->introduction, err));
        dk_introduction_write(&text, &i, false);
    }
    dk_status status = dk_engine_announce(engine, dk_string_text(&text), &o->told, err);
    dk_string_release(&text);
    return status;
}

static dk_status open_engine(void *context, dk_engine **out, dk_error *err)
{
    opening *o = context;
    dk_engine *engine;
    DK_TRY(dk_engine_setup_open(&engine, &o->setup, &o->progress, err));
    dk_status status = announce(o, engine, err);
    if (status != DK_OK) {
        dk_engine_close(&engine);
        return status;
    }
    *out = engine;
    return DK_OK;
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
    opening o = {.told = NULL};
    worker_flags flags = {.fd = DK_PROCESS_FD, .worker_count = 1, .checkpoint_every_s = 10};
    dk_engine_setup_init(&o.setup);
    o.setup.takes_requests = true;
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
        o.introduction = flags.introduction;
        const dk_worker_options options = {.fd = flags.fd,
                                           .checkpoint_every_s = flags.checkpoint_every_s,
                                           .open = open_engine,
                                           .context = &o,
                                           .introduction = (const char *const *)&o.told,
                                           .model_name =
                                               path != NULL ? path : DK_EMBEDDED_MODEL};
        status = dk_worker_run(&options, err);
    }
    dk_free(o.told);
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
