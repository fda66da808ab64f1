/* darkroom scheduler: the queue and its workers, for `darkroom serve` and the Python SDK. */
#include <limits.h>
#include <stddef.h>

#include "base/alloc.h"
#include "base/process.h"
#include "base/trace.h"
#include "cli/arguments.h"
#include "cli/models.h"
#include "cli/processes.h"
#include "cli/replicas.h"
#include "engine/option_parameters.h"
#include "engine/rank_parameters.h"
#include "server/scheduler/scheduler.h"

typedef struct scheduler_flags {
    const char *endpoint, *curve_keys, *introduction, *workers_address;
    int parent_pid;
} scheduler_flags;

static const dk_parameter parameters[] = {
    {.name = "endpoint",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(scheduler_flags, endpoint),
     .max = 4096,
     .unit = "ENDPOINT",
     .default_text = "required",
     .help = "where to listen: ipc:///folder/name, in a folder of mode 0700, or "
             "tcp://address:port with CURVE keys"},
    {.name = "curve_keys",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(scheduler_flags, curve_keys),
     .max = 4096,
     .unit = "FILE",
     .default_text = "none",
     .help = "lines secret=KEY and allowed=KEY KEY…, mode 0600"},
    {.name = "introduction",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(scheduler_flags, introduction),
     .max = 4096,
     .unit = "FILE",
     .default_text = "none: all workers are started here",
     .help = "all replicas but the first were started by a launcher: a file of mode 0600 for "
             "what they are told, which serve hands over"},
    {.name = "workers_address",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(scheduler_flags, workers_address),
     .max = 319,
     .unit = "ADDRESS",
     .default_text = "any port of any network",
     .help = "where to listen to those replicas: host:port, either may be *"},
    {.name = "parent_pid",
     .type = DK_PARAMETER_INT,
     .offset = offsetof(scheduler_flags, parent_pid),
     .max = INT_MAX,
     .default_text = "none",
     .help = "process that this one shall not outlive"},
};
static const dk_parameter_table scheduler_parameters = {.title = "Listening",
                                                        .parameters = parameters,
                                                        .count = sizeof parameters /
                                                                 sizeof *parameters};

typedef struct run_state {
    scheduler_flags flags;
    dk_scheduler_options options;
    dk_engine_setup setup;
    dk_layout layout;
    dk_progress progress;
    dk_command_line worker;
    dk_link_keys keys;
    char *key_text;
} run_state;

static dk_status read_arguments(run_state *r, const dk_arguments *arguments, dk_error *err)
{
    DK_TRY(dk_arguments_apply(arguments, &scheduler_parameters, &r->flags, err));
    DK_TRY(dk_arguments_apply(arguments, &dk_scheduler_parameters, &r->options, err));
    DK_TRY(dk_arguments_apply(arguments, &dk_option_parameters, &r->setup.options, err));
    DK_TRY(dk_arguments_apply(arguments, &dk_rank_parameters, &r->setup.options, err));
    DK_TRY(dk_ranks_serving_layout(&r->layout, &r->setup.options, err));
    if (r->setup.options.trace_path != NULL) {
        DK_TRY(dk_trace_path_check(r->setup.options.trace_path, err));
    }
    if (r->flags.endpoint == NULL) {
        return dk_fail(err, DK_INVALID,
                       "--endpoint is missing, such as "
                       "ipc:///run/user/1000/darkroom/scheduler");
    }
    if (r->flags.parent_pid > 0) {
        DK_TRY(dk_process_bind(r->flags.parent_pid, err));
    }
    return r->flags.curve_keys != NULL
               ? dk_link_keys_read(&r->keys, &r->key_text, r->flags.curve_keys, err)
               : DK_OK;
}

static dk_status schedule(run_state *r, dk_error *err)
{
    dk_launch launch;
    dk_launch_read(&launch);
    const dk_log log = {
        .write = dk_progress_log, .context = &r->progress, .level = r->setup.options.log_level};
    bool apart = r->flags.introduction != NULL;
    bool one_world = apart && dk_replicas_by_mpi(&r->setup.options);
    dk_worker_command_line(&r->worker, &r->options, &r->setup.options, &r->layout, one_world);
    if (one_world) {
        dk_string word = DK_STRING_EMPTY;
        dk_string_printf(&word, "--introduction=%s", r->flags.introduction);
        dk_command_line_add(&r->worker, word.data);
        dk_string_release(&word);
    }
    r->options.replicas = r->layout.dp;
    const dk_scheduler_setup setup = {.options = &r->options,
                                      .endpoint = r->flags.endpoint,
                                      .keys = &r->keys,
                                      .worker_argv = (const char *const *)r->worker.words,
                                      .once = launch.is_rank && launch.ranks > 1 &&
                                              (one_world || !apart),
                                      .introduction = r->flags.introduction,
                                      .workers_address = r->flags.workers_address,
                                      .cores_of = !apart                   ? 0
                                                  : launch.local_ranks > 0 ? launch.local_ranks
                                                                           : 1,
                                      .log = &log};
    return dk_scheduler_run(&setup, err);
}

static dk_status run(const dk_arguments *arguments, dk_error *err)
{
    run_state r = {.flags.workers_address = "*:*"};
    dk_scheduler_options_init(&r.options);
    dk_engine_setup_init(&r.setup);
    dk_status status = read_arguments(&r, arguments, err);
    if (status == DK_OK) {
        dk_progress_init(&r.progress, r.setup.options.log_level);
        status = schedule(&r, err);
    }
    dk_command_line_release(&r.worker);
    dk_engine_setup_release(&r.setup);
    dk_free(r.key_text);
    return status;
}

static const dk_flag_group groups[] = {{&scheduler_parameters, NULL},
                                       {&dk_scheduler_parameters, NULL},
                                       {&dk_option_parameters, NULL},
                                       {&dk_rank_parameters, NULL},
                                       {NULL, NULL}};

const dk_command dk_command_scheduler = {
    .name = "scheduler",
    .usage = "--endpoint ENDPOINT [flags]",
    .summary = "queue tasks and run workers, for programs that speak ZeroMQ",
    .text = "What `darkroom serve` and the Python SDK start. The messages are described in\n"
            "docs/protocol.md.",
    .examples = "darkroom scheduler --endpoint ipc:///run/user/1000/darkroom/scheduler\n",
    .groups = groups,
    .run = run,
};
