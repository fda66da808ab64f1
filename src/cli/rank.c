/* darkroom rank: one of a replica's processes that follow the one that leads. */
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>

#include "base/alloc.h"
#include "base/process.h"
#include "cli/arguments.h"
#include "cli/models.h"
#include "cli/ranks.h"
#include "engine/option_parameters.h"
#include "engine/rank_parameters.h"

typedef struct rank_flags {
    int rank, parent_pid, core_index, core_count;
    const char *rank_address;
} rank_flags;

static const dk_parameter parameters[] = {
    {.name = "rank",
     .type = DK_PARAMETER_INT,
     .offset = offsetof(rank_flags, rank),
     .min = 1,
     .max = DK_COMM_MOST_RANKS,
     .default_text = "required",
     .help = "which rank this is"},
    {.name = "rank_address",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(rank_flags, rank_address),
     .max = 255,
     .unit = "ADDRESS",
     .default_text = "required",
     .help = "where the ranks meet"},
    {.name = "parent_pid",
     .type = DK_PARAMETER_INT,
     .offset = offsetof(rank_flags, parent_pid),
     .max = INT_MAX,
     .default_text = "none",
     .help = "process that this one shall not outlive"},
    {.name = "core_index",
     .type = DK_PARAMETER_INT,
     .offset = offsetof(rank_flags, core_index),
     .max = 4096,
     .default_text = "0",
     .help = "which share of the cores is this rank's"},
    {.name = "core_count",
     .type = DK_PARAMETER_INT,
     .offset = offsetof(rank_flags, core_count),
     .min = 1,
     .max = 4096,
     .default_text = "1",
     .help = "of how many shares"},
};
static const dk_parameter_table own_parameters = {
    .title = "Rank", .parameters = parameters, .count = sizeof parameters / sizeof *parameters};

static dk_status run(const dk_arguments *arguments, dk_error *err)
{
    dk_engine_setup setup;
    rank_flags flags = {.core_count = 1};
    dk_engine_setup_init(&setup);
    dk_status status = dk_arguments_apply(arguments, &own_parameters, &flags, err);
    if (status == DK_OK) {
        status = dk_arguments_apply(arguments, &dk_option_parameters, &setup.options, err);
    }
    if (status == DK_OK) {
        status = dk_arguments_apply(arguments, &dk_rank_parameters, &setup.options, err);
    }
    if (status == DK_OK && flags.parent_pid > 0) {
        status = dk_process_bind(flags.parent_pid, err);
    }
    if (status == DK_OK) {
        status = dk_rank_read_key(&setup.team, DK_PROCESS_FD, err);
    }
    if (status == DK_OK) {
        setup.options.rank = flags.rank;
        setup.options.rank_address = flags.rank_address;
        setup.options.rank_key = setup.team.key;
        setup.joined = true;
        dk_rank_settle(&setup.team, &setup.options,
                       (dk_core_share){flags.core_index, flags.core_count});
        status = dk_engine_setup_follow(&setup, err);
    }
    dk_engine_setup_release(&setup);
    return status;
}

static const dk_flag_group groups[] = {{&own_parameters, NULL},
                                       {&dk_option_parameters, NULL},
                                       {&dk_rank_parameters, NULL},
                                       {NULL, NULL}};

const dk_command dk_command_rank = {
    .name = "rank",
    .usage = "[flags]",
    .summary = "compute with a rank that leads, which starts this process",
    .examples = "darkroom generate --prompt \"a red circle\" --num-gpus 2\n",
    .hidden = true,
    .groups = groups,
    .run = run,
};
