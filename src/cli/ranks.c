/* Starting the other ranks of a replica. */
#include "cli/ranks.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/process.h"
#include "base/trace.h"
#include "cli/launchers.h"
#include "cli/processes.h"
#include "engine/option_parameters.h"
#include "engine/rank_parameters.h"
#include "engine/ranks.h"

enum { GRACE_MS = 3000 };

static const dk_parameter topology[] = {
    {.name = "print_topology",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(dk_topology_flags, print_topology),
     .default_text = "false",
     .help = "draw the groups that the ranks form, and end"},
};
const dk_parameter_table dk_topology_parameters = {
    .title = "Groups", .parameters = topology, .count = sizeof topology / sizeof *topology};

dk_status dk_ranks_topology(bool *drawn, const dk_arguments *arguments, const dk_layout *layout,
                            const dk_engine_options *options, dk_error *err)
{
    dk_topology_flags flags = {0};
    DK_TRY(dk_arguments_apply(arguments, &dk_topology_parameters, &flags, err));
    *drawn = flags.print_topology;
    if (flags.print_topology) {
        int shards;
        DK_TRY(dk_ranks_check_shards(&shards, layout, options, err));
        dk_string text = DK_STRING_EMPTY;
        dk_layout_draw(&text, layout, shards);
        fputs(dk_string_text(&text), stdout);
        dk_string_release(&text);
    }
    return DK_OK;
}

dk_status dk_ranks_serving_layout(dk_layout *out, dk_engine_options *options, dk_error *err)
{
    bool alone = options->dp_size == 0 && options->sp_degree == 0 &&
                 options->ulysses_degree == 0 && options->ring_degree == 0 &&
                 options->tp_size == 0 && !options->enable_cfg_parallel;
    if (alone) {
        options->dp_size = options->num_gpus;
    }
    int shards;
    DK_TRY(dk_ranks_layout(out, options, err));
    return dk_ranks_check_shards(&shards, out, options, err);
}

void dk_ranks_replica_options(dk_engine_options *options, const dk_layout *layout)
{
    options->num_gpus = dk_layout_replica_ranks(layout);
    options->dp_size = 1;
    options->sp_degree = dk_layout_sp(layout);
    options->ulysses_degree = layout->ulysses;
    options->ring_degree = layout->ring;
    options->tp_size = layout->tp;
}

const char *dk_rank_device(char out[DK_RANK_DEVICE_BYTES], const char *asked, int index)
{
    if (asked == NULL || strcmp(asked, "xpu") != 0 || index < 0) {
        return asked;
    }
    snprintf(out, DK_RANK_DEVICE_BYTES, "xpu:%d", index);
    return out;
}

void dk_rank_settle(dk_rank_team *team, dk_engine_options *options, dk_core_share cores)
{
    if (cores.of > 1) {
        options->device = dk_rank_device(team->device, options->device, cores.index);
    }
    if (cores.of > 1 && options->trace_path != NULL) {
        team->trace = dk_trace_path_of_rank(options->trace_path, cores.index);
        options->trace_path = team->trace;
        options->trace_rank = cores.index;
    }
    dk_process_share_cores(cores.index, cores.of);
}

/* The key does not go through the command line, which everybody can read. */
static dk_status start_rank(dk_rank_team *team, int rank, const dk_command_line *common,
                            dk_core_share cores, dk_error *err)
{
    char word[64];
    int ends[2];
    size_t length = strlen(team->key);
    if (pipe(ends) != 0) {
        return dk_fail(err, DK_IO, "a pipe for rank %d: %s", rank, strerror(errno));
    }
    dk_command_line line = {0};
    for (int i = 0; i < common->count; i++) {
        dk_command_line_add(&line, common->words[i]);
    }
    snprintf(word, sizeof word, "--rank=%d", rank);
    dk_command_line_add(&line, word);
    snprintf(word, sizeof word, "--core-index=%d", cores.index + rank);
    dk_command_line_add(&line, word);
    bool written = write(ends[1], team->key, length) == (ssize_t)length;
    dk_status status =
        written ? dk_process_start(&team->pids[rank], (const char *const *)line.words, ends[0],
                                   false, err)
                : dk_fail(err, DK_IO, "a pipe for rank %d: %s", rank, strerror(errno));
    close(ends[0]);
    close(ends[1]);
    dk_command_line_release(&line);
    return status;
}

/* The words that all ranks have in common. */
static void common_words(dk_command_line *line, const dk_rank_team *team,
                         const dk_engine_options *options, dk_core_share cores)
{
    char word[320];
    dk_command_line_init(line, "rank");
    dk_command_line_add_fields(line, &dk_option_parameters, options);
    dk_command_line_add_fields(line, &dk_rank_parameters, options);
    snprintf(word, sizeof word, "--rank-address=%s", team->address);
    dk_command_line_add(line, word);
    snprintf(word, sizeof word, "--core-count=%d", cores.of);
    dk_command_line_add(line, word);
    snprintf(word, sizeof word, "--parent-pid=%d", (int)getpid());
    dk_command_line_add(line, word);
}

static dk_status start_ranks(dk_rank_team *team, const dk_engine_options *options, int ranks,
                             dk_core_share cores, dk_error *err)
{
    dk_command_line line;
    common_words(&line, team, options, cores);
    dk_status status = DK_OK;
    for (int rank = 1; rank < ranks && status == DK_OK; rank++) {
        status = start_rank(team, rank, &line, cores, err);
        team->count = rank + 1;
    }
    dk_command_line_release(&line);
    return status;
}

dk_status dk_rank_team_start(dk_rank_team *team, dk_engine_options *options,
                             dk_core_share cores, bool takes_requests, dk_error *err)
{
    dk_layout layout;
    bool launched;
    *team = (dk_rank_team){0};
    DK_TRY(dk_launcher_place(team, options, &cores, &launched, err));
    int shards;
    bool replicas = launched && takes_requests;
    DK_TRY((replicas ? dk_ranks_layout : dk_ranks_layout_alone)(&layout, options, err));
    DK_TRY(dk_ranks_check_shards(&shards, &layout, options, err));
    int ranks = dk_layout_replica_ranks(&layout);
    if (ranks == 1 || launched) {
        dk_rank_settle(team, options, cores);
        return DK_OK;
    }
    cores.of = cores.of > ranks ? cores.of : ranks;
    DK_TRY(dk_launcher_arrange(team, err));
    dk_status status = start_ranks(team, options, ranks, cores, err);
    if (status != DK_OK) {
        dk_rank_team_end(team);
        return status;
    }
    options->rank = 0;
    options->rank_address = team->address;
    options->rank_key = team->key;
    dk_rank_settle(team, options, cores);
    return DK_OK;
}

void dk_rank_team_end(dk_rank_team *team)
{
    for (int i = 0; i < team->count; i++) {
        double waited = 0;
        while (waited < GRACE_MS && !dk_process_has_ended(&team->pids[i])) {
            usleep(1000);
            waited += 1;
        }
        dk_process_kill(&team->pids[i]);
    }
    team->count = 0;
    dk_free(team->trace);
    team->trace = NULL;
}

dk_status dk_rank_read_key(dk_rank_team *team, int fd, dk_error *err)
{
    size_t got = 0, most = sizeof team->key - 1;
    ssize_t count;
    while (got < most && (count = read(fd, team->key + got, most - got)) > 0) {
        got += (size_t)count;
    }
    team->key[got] = '\0';
    close(fd);
    return got > 0
               ? DK_OK
               : dk_fail(err, DK_INVALID,
                         "no key on descriptor %d: ranks are started by the rank that leads",
                         fd);
}
