/* Starting the ranks of a bench. */
#include "cli/bench_ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/process.h"
#include "base/trace.h"
#include "cli/launchers.h"

enum { MOST_WORDS = 256, MOST_LINE = 1 << 20 };

/* This process's own words, borrowed from *text (owned). A file of /proc has no size before it
   is read. */
static dk_status own_words(const char *words[MOST_WORDS + 1], char **text, dk_error *err)
{
    int count = 0, file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t got = 0, size = 0;
    *text = dk_alloc(MOST_LINE + 1);
    while (file >= 0 && (got = read(file, *text + size, (size_t)(MOST_LINE - size))) > 0) {
        size += got;
    }
    if (file < 0 || got < 0 || size == 0) {
        return dk_fail(err, DK_IO, "/proc/self/cmdline: %s", strerror(errno));
    }
    close(file);
    for (ssize_t at = 0; at < size && count < MOST_WORDS;
         at += (ssize_t)strlen(*text + at) + 1) {
        words[count++] = *text + at;
    }
    words[0] = "/proc/self/exe";
    words[count] = NULL;
    return DK_OK;
}

/* The others see what a launcher would tell them; this one is rank 0 of the same. */
static dk_status start_others(dk_rank_team *team, int ranks, dk_error *err)
{
    const char *words[MOST_WORDS + 1];
    char *text = NULL;
    DK_TRY(own_words(words, &text, err));
    dk_status status = dk_launcher_arrange(team, err);
    for (int rank = 1; rank < ranks && status == DK_OK; rank++) {
        dk_launcher_tell(team, rank, ranks);
        status = dk_process_start(&team->pids[rank], words, -1, false, err);
        team->count = rank + 1;
    }
    dk_launcher_tell(team, 0, ranks);
    dk_free(text);
    return status;
}

dk_status dk_bench_ranks_open(dk_bench_ranks *out, dk_engine_options *options,
                              dk_bench_check *check, const void *context, dk_error *err)
{
    dk_layout layout;
    dk_core_share cores = {0, 1};
    bool launched;
    *out = (dk_bench_ranks){0};
    if (options->use_fsdp_inference || options->enable_cfg_parallel || options->dp_size > 1) {
        return dk_fail(err, DK_INVALID,
                       "bench model makes one pass with weights of random numbers: "
                       "use_fsdp_inference, enable_cfg_parallel and dp_size have nothing to "
                       "share out, accepted are tp_size, ulysses_degree and ring_degree");
    }
    DK_TRY(dk_launcher_place(&out->team, options, &cores, &launched, err));
    DK_TRY(dk_ranks_layout_alone(&layout, options, err));
    DK_TRY(check(context, &layout, err));
    if (!launched && dk_layout_replica_ranks(&layout) > 1) {
        DK_TRY(start_others(&out->team, options->num_gpus, err));
        DK_TRY(dk_launcher_place(&out->team, options, &cores, &launched, err));
    } else if (launched) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    dk_rank_settle(&out->team, options, cores);
    if (options->trace_path != NULL) {
        const dk_trace_options trace = {.path = options->trace_path,
                                        .process = "darkroom bench",
                                        .rank = options->trace_rank};
        DK_TRY(dk_trace_open(&out->trace, &trace, err));
    }
    DK_TRY(dk_ranks_open(&out->ranks, options, NULL, err));
    if (out->ranks != NULL) {
        dk_ranks_set_trace(out->ranks, out->trace);
    }
    return DK_OK;
}

void dk_bench_ranks_close(dk_bench_ranks *ranks)
{
    dk_ranks_close(&ranks->ranks);
    dk_trace_close(&ranks->trace);
    dk_rank_team_end(&ranks->team);
}
