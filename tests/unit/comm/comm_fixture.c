/* Ranks of a test, as processes. */
#include "comm_fixture.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/process.h"
#include "base/team.h"
#include "test.h"

enum { MEETING_MS = 20000 };

bool ran_as_rank(int argc, char **argv, const rank_case *cases, int count, int *code)
{
    dk_error err = {0};
    dk_status status = DK_NOT_FOUND;
    if (argc != 8 || strcmp(argv[1], "rank") != 0) {
        return false;
    }
    status = dk_process_bind(atoi(argv[7]), &err);
    dk_transport_options options = {.rank = atoi(argv[3]),
                                    .ranks = atoi(argv[4]),
                                    .address = argv[5],
                                    .key = "a key",
                                    .deadline_ms = dk_now_ms() + MEETING_MS,
                                    .cores_are_short = atoi(argv[4]) > dk_available_cores()};
    for (int i = 0; i < count && status == DK_OK; i++) {
        if (strcmp(cases[i].name, argv[2]) == 0) {
            status = cases[i].run(&options, argv[6], &err);
        }
    }
    ssize_t written = write(DK_PROCESS_FD, err.message, strlen(err.message));
    (void)written; /* the test sees that nothing came */
    *code = (int)status;
    return true;
}

void begin_set(rank_set *set, const char *address)
{
    static atomic_int number;
    *set = (rank_set){.start_ms = dk_now_ms()};
    snprintf(set->address, sizeof set->address, "unix:@dk-test-%d-%d", (int)getpid(),
             atomic_fetch_add(&number, 1));
    if (address != NULL) {
        snprintf(set->address, sizeof set->address, "%s", address);
    }
}

void start_rank(rank_set *set, const char *name, int rank, int ranks, const char *argument)
{
    char program[512] = {0}, texts[3][16];
    int ends[2];
    dk_error err;
    assert_true(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    snprintf(texts[0], sizeof texts[0], "%d", rank);
    snprintf(texts[1], sizeof texts[1], "%d", ranks);
    snprintf(texts[2], sizeof texts[2], "%d", (int)getpid());
    const char *argv[] = {program,      "rank",   name,     texts[0], texts[1],
                          set->address, argument, texts[2], NULL};
    assert_in_range(set->ranks, 0, MOST_RANKS - 1);
    assert_ok(dk_process_start(&set->pids[set->ranks], argv, ends[1], false, &err), err);
    close(ends[1]);
    set->pipes[set->ranks++] = ends[0];
}

void start_ranks(rank_set *set, const char *name, int ranks, const char *argument,
                 const char *address)
{
    begin_set(set, address);
    for (int i = 0; i < ranks; i++) {
        start_rank(set, name, i, ranks, argument);
    }
}

void rank_is_ready(void)
{
    char sign = '+';
    ssize_t written = write(DK_PROCESS_FD, &sign, 1);
    (void)written; /* the test sees that nothing came */
}

bool await_ready(rank_set *set)
{
    bool all = true;
    for (int i = 0; i < set->ranks; i++) {
        char sign = 0;
        all = read(set->pipes[i], &sign, 1) == 1 && sign == '+' && all;
    }
    return all;
}

static void end_rank(rank_set *set, int i, rank_end *end)
{
    size_t got = 0;
    ssize_t count;
    int code = 0;
    *end = (rank_end){0};
    while ((count = read(set->pipes[i], end->text + got, sizeof end->text - 1 - got)) > 0 ||
           (count < 0 && errno == EINTR)) {
        got += count > 0 ? (size_t)count : 0;
    }
    close(set->pipes[i]);
    while (waitpid(set->pids[i], &code, 0) < 0 && errno == EINTR) {
    }
    end->seconds = (dk_now_ms() - set->start_ms) * 1e-3;
    end->was_killed = WIFSIGNALED(code) && WTERMSIG(code) == SIGKILL;
    if (WIFSIGNALED(code) && !end->was_killed) {
        fail_msg("rank %d of %d was ended by signal %d", i, set->ranks, WTERMSIG(code));
    }
    end->status = WIFEXITED(code) ? (dk_status)WEXITSTATUS(code) : DK_INTERNAL;
}

void end_ranks(rank_set *set, rank_end ends[MOST_RANKS])
{
    for (int i = 0; i < set->ranks; i++) {
        end_rank(set, i, &ends[i]);
    }
}

void run_ranks(const char *name, int ranks, const char *argument)
{
    rank_set set;
    rank_end ends[MOST_RANKS];
    start_ranks(&set, name, ranks, argument, NULL);
    end_ranks(&set, ends);
    for (int i = 0; i < ranks; i++) {
        if (ends[i].status != DK_OK || ends[i].was_killed) {
            fail_msg("%s, rank %d of %d: %s: %s", name, i, ranks,
                     dk_status_text(ends[i].status), ends[i].text);
        }
    }
}

uint32_t known_number(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    uint32_t x = *state;
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    return x;
}
