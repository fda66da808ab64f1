/* darkroom serve: the HTTP server with its scheduler and workers. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/trace.h"
#include "cli/arguments.h"
#include "cli/folder.h"
#include "cli/launchers.h"
#include "cli/models.h"
#include "cli/processes.h"
#include "cli/replicas.h"
#include "engine/option_parameters.h"
#include "engine/rank_parameters.h"
#include "server/scheduler/scheduler.h"
#include "server/serve/serve.h"

typedef struct run_state {
    dk_serve_options serve;
    dk_scheduler_options scheduler;
    dk_engine_setup setup;
    dk_layout layout;
    int rank, ranks; /* as a launcher started them */
    bool replicas_are_launched;
    dk_replicas replicas; /* then */
    dk_progress progress;
    dk_command_line line;
    char *store;
} run_state;

/* XDG_STATE_HOME/darkroom, else ~/.local/state/darkroom. */
static char *default_store(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (state != NULL && state[0] == '/') {
        return dk_path_join(state, "darkroom");
    }
    return dk_path_join(home != NULL ? home : ".", ".local/state/darkroom");
}

/* The first line of stdout is for programs that start a server. */
static void on_listening(void *context, const char *url)
{
    (void)context;
    printf("listening on %s\n", url);
    fflush(stdout);
}

static void on_ready(void *context, const char *model, const char *device)
{
    (void)context;
    printf("ready: %s on %s\n", model, device);
    fflush(stdout);
}

/* Under mpirun, srun and their like rank 0 serves, and the others compute for it. */
static dk_status take_launcher(run_state *r, dk_error *err)
{
    bool launched;
    DK_TRY(dk_launcher_rank(&r->rank, &r->ranks, &launched, err));
    if (!launched) {
        return DK_OK;
    }
    dk_engine_options *options = &r->setup.options;
    if (options->num_gpus > 1 && options->num_gpus != r->ranks) {
        return dk_fail(err, DK_INVALID, "num_gpus is %d, but %d ranks were started",
                       options->num_gpus, r->ranks);
    }
    options->num_gpus = r->ranks;
    options->dp_size = options->dp_size > 0 ? options->dp_size : 1;
    return DK_OK;
}

static dk_status read_arguments(run_state *r, const dk_arguments *arguments, dk_error *err)
{
    DK_TRY(dk_arguments_apply(arguments, &dk_serve_parameters, &r->serve, err));
    DK_TRY(dk_arguments_apply(arguments, &dk_scheduler_parameters, &r->scheduler, err));
    DK_TRY(dk_arguments_apply(arguments, &dk_option_parameters, &r->setup.options, err));
    DK_TRY(dk_arguments_apply(arguments, &dk_rank_parameters, &r->setup.options, err));
    DK_TRY(take_launcher(r, err));
    DK_TRY(dk_ranks_serving_layout(&r->layout, &r->setup.options, err));
    r->replicas_are_launched = dk_replicas_are_launched(&r->layout);
    if (r->replicas_are_launched && r->serve.scheduler_endpoint != NULL) {
        return dk_fail(err, DK_INVALID,
                       "scheduler_endpoint is '%s', but a launcher started %d replicas, which "
                       "take requests from this server's own scheduler; accepted is none",
                       r->serve.scheduler_endpoint, r->layout.dp);
    }
    if (r->setup.options.trace_path != NULL) {
        DK_TRY(dk_trace_path_check(r->setup.options.trace_path, err));
    }
    if ((r->serve.ssl_certfile == NULL) != (r->serve.ssl_keyfile == NULL)) {
        return dk_fail(err, DK_INVALID, "--ssl-certfile and --ssl-keyfile come together");
    }
    return DK_OK;
}

static dk_log log_of(run_state *r)
{
    return (dk_log){
        .write = dk_progress_log, .context = &r->progress, .level = r->setup.options.log_level};
}

static dk_status serve(run_state *r, dk_error *err)
{
    const dk_log log = log_of(r);
    r->store = r->serve.store_path != NULL ? dk_strdup(r->serve.store_path) : default_store();
    dk_command_line_init(&r->line, "scheduler");
    dk_command_line_add_fields(&r->line, &dk_scheduler_parameters, &r->scheduler);
    dk_command_line_add_fields(&r->line, &dk_option_parameters, &r->setup.options);
    dk_command_line_add_fields(&r->line, &dk_rank_parameters, &r->setup.options);
    if (r->replicas_are_launched) {
        dk_replicas_add_words(&r->replicas, &r->line);
    }
    const dk_serve_setup setup = {.options = &r->serve,
                                  .store_path = r->store,
                                  .run_folder_base = dk_run_folder_base(),
                                  .scheduler_argv = (const char *const *)r->line.words,
                                  .layout = &r->layout,
                                  .log = &log,
                                  .listening = on_listening,
                                  .ready = on_ready};
    return dk_serve_run(&setup, err);
}

/* What this process is: the server, the leader of a further replica, or a rank that follows
   its replica's leader. */
static dk_status take_part(run_state *r, dk_error *err)
{
    int rank = r->rank;
    if (r->replicas_are_launched) {
        const dk_log log = log_of(r);
        DK_TRY(dk_replicas_meet(&r->replicas, &r->layout, &r->setup, err));
        if (dk_replicas_place(&r->replicas, &rank).dp > 0 && rank == 0) {
            return dk_replicas_lead(&r->replicas, &r->scheduler, &log, err);
        }
    }
    return rank > 0 ? dk_engine_setup_follow(&r->setup, err) : serve(r, err);
}

static dk_status run(const dk_arguments *arguments, dk_error *err)
{
    run_state r = {0};
    dk_serve_options_init(&r.serve);
    dk_scheduler_options_init(&r.scheduler);
    dk_engine_setup_init(&r.setup);
    r.setup.takes_requests = true;
    bool drawn = false;
    dk_status status = read_arguments(&r, arguments, err);
    if (status == DK_OK) {
        status = dk_ranks_topology(&drawn, arguments, &r.layout, &r.setup.options, err);
    }
    if (status == DK_OK && !drawn) {
        dk_progress_init(&r.progress, r.setup.options.log_level);
        status = take_part(&r, err);
    }
    dk_command_line_release(&r.line);
    dk_engine_setup_release(&r.setup);
    dk_free(r.store);
    return status;
}

static const dk_flag_group groups[] = {
    {&dk_serve_parameters, NULL},    {&dk_scheduler_parameters, NULL},
    {&dk_option_parameters, NULL},   {&dk_rank_parameters, NULL},
    {&dk_topology_parameters, NULL}, {NULL, NULL}};

const dk_command dk_command_serve = {
    .name = "serve",
    .usage = "[flags]",
    .summary = "serve the model over HTTP: OpenAI's image and video API, and a page",
    .text =
        "Open http://127.0.0.1:30000 in a browser, or use any OpenAI client with base_url\n"
        "http://127.0.0.1:30000/v1. Accepted jobs survive a restart. SIGTERM drains: running\n"
        "jobs end first (--drain-timeout); a second one ends the server at once. Under mpirun\n"
        "and srun the first rank serves, and the others compute with it, or with --dp-size "
        "for\n"
        "it: replicas of their own.",
    .examples = "darkroom serve\n"
                "darkroom serve --num-gpus 2 --port 8000 --api-key-file keys.txt\n"
                "darkroom serve --model-path Wan-AI/Wan2.1-T2V-1.3B-Diffusers --host 0.0.0.0 "
                "--api-key secret\n",
    .groups = groups,
    .run = run,
};
