/* Tests of groups run in processes of their own: the test program starts itself once per rank.

   A case is a function that runs in every rank, found by its name. Its status and the message
   of its error come back to the test. */
#ifndef DK_TESTS_COMM_FIXTURE_H
#define DK_TESTS_COMM_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "comm/transport.h"

enum { MOST_RANKS = 20, RANK_TEXT_BYTES = 1200 };

typedef struct rank_case {
    const char *name;
    dk_status (*run)(const dk_transport_options *options, const char *argument, dk_error *err);
} rank_case;

/* How a rank's process ended. */
typedef struct rank_end {
    bool was_killed;
    dk_status status;
    char text[RANK_TEXT_BYTES]; /* the error's message */
    double seconds;             /* from the start of the ranks */
} rank_end;

typedef struct rank_set {
    int ranks;
    pid_t pids[MOST_RANKS];
    int pipes[MOST_RANKS];
    double start_ms;
    char address[64];
} rank_set;

/* The main of such a program: true when it has been started as a rank, and *code is its exit
   code. */
bool ran_as_rank(int argc, char **argv, const rank_case *cases, int count, int *code);

/* Starts `ranks` processes that run a case; address NULL: a new one of this host. */
void start_ranks(rank_set *set, const char *name, int ranks, const char *argument,
                 const char *address);
/* One more into a set whose ranks are named by hand. */
void start_rank(rank_set *set, const char *name, int rank, int ranks, const char *argument);
void begin_set(rank_set *set, const char *address);
/* In a rank: it is where the test wants it. In the test: waits until all ranks have said so;
   false: one has ended before. */
void rank_is_ready(void);
bool await_ready(rank_set *set);
/* Waits for all of them. */
void end_ranks(rank_set *set, rank_end ends[MOST_RANKS]);

/* Starts, waits, and fails the test unless every rank ended well. */
void run_ranks(const char *name, int ranks, const char *argument);

/* Repeatable numbers that every rank can compute for every other. */
uint32_t known_number(uint32_t *state);

#endif
