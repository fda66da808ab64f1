/* Replicas that a launcher started: who is told what, and where they meet. */
#define _GNU_SOURCE /* memfd_create */
#include "cli/replicas.h"

#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/folder.h"
#include "comm/rendezvous.h"
#include "engine/option_parameters.h"
#include "engine/rank_parameters.h"
#include "server/worker/relay.h"

enum { MEETING_S = DK_COMM_START_S, AGAIN_MS = 200, LOOK_MS = 20, ADDRESS_BYTES = 320 };

/* What everybody brings to the meeting of a replica with rank 0's process. */
typedef struct brought {
    char introduction[DK_INTRODUCTION_BYTES]; /* of rank 0's process */
    char address[ADDRESS_BYTES]; /* of the one that leads: where the replica itself meets */
} brought;

bool dk_replicas_are_launched(const dk_layout *layout)
{
    dk_launch launch;
    dk_launch_read(&launch);
    return layout->dp > 1 && launch.is_rank && launch.ranks > 1;
}

bool dk_replicas_by_mpi(const dk_engine_options *options)
{
    dk_launch launch;
    dk_launch_read(&launch);
    const char *backend = options->distributed_backend;
    return launch.by_mpi &&
           (backend == NULL || strcmp(backend, "auto") == 0 || strcmp(backend, "mpi") == 0);
}

dk_place dk_replicas_place(const dk_replicas *r, int *rank)
{
    *rank = r->launch.rank % dk_layout_replica_ranks(&r->layout);
    return dk_layout_place(&r->layout, r->launch.rank);
}

static bool is_local(const char *address)
{
    return dk_starts_with(address, "unix:");
}

/* The host and the port of "host:port"; 0: there is none. */
static int take_apart(char host[ADDRESS_BYTES], const char *address)
{
    const char *colon = strrchr(address, ':');
    snprintf(host, ADDRESS_BYTES, "%.*s", colon != NULL ? (int)(colon - address) : 0, address);
    return colon != NULL ? (int)strtol(colon + 1, NULL, 10) : 0;
}

/* An address beside the launcher's: a port further on, or a longer name. */
static void print_beside(char out[ADDRESS_BYTES], const char *address, const char *word,
                         int replica, int port_offset)
{
    char host[ADDRESS_BYTES];
    if (is_local(address)) {
        snprintf(out, ADDRESS_BYTES, "%.256s-%s-%d", address, word, replica);
    } else {
        int port = take_apart(host, address);
        snprintf(out, ADDRESS_BYTES, "%.256s:%d", host, port + port_offset);
    }
}

static void print_introducing(char out[ADDRESS_BYTES], const dk_replicas *r, int replica)
{
    print_beside(out, r->launch.address, "replica", replica, replica);
}

/* The scheduler listens where the launcher says that rank 0 is, or where MPI's ranks are. */
static void choose_workers_address(dk_replicas *r)
{
    char host[ADDRESS_BYTES];
    const char *address = r->launch.address;
    if (is_local(address)) {
        snprintf(r->workers_address, sizeof r->workers_address, "127.0.0.1:*");
    } else if (address[0] == '\0') {
        snprintf(r->workers_address, sizeof r->workers_address, "*:*");
    } else if (r->by_mpi) {
        take_apart(host, address);
        snprintf(r->workers_address, sizeof r->workers_address, "%.256s:*", host);
    } else {
        print_beside(r->workers_address, address, "", 0, r->layout.dp);
    }
}

/* The address by which this host reaches another is one that others reach it by. */
static dk_status own_host(char out[NI_MAXHOST], const char *address, dk_error *err)
{
    char host[ADDRESS_BYTES], port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *list;
    struct sockaddr_storage own;
    socklen_t size = sizeof own;
    snprintf(port, sizeof port, "%d", take_apart(host, address));
    size_t length = strlen(host);
    bool six = length > 2 && host[0] == '[' && host[length - 1] == ']';
    host[six ? length - 1 : length] = '\0';
    int code = getaddrinfo(host + six, port, &hints, &list);
    if (code != 0) {
        return dk_fail(err, DK_NETWORK, "'%s': %s", address, gai_strerror(code));
    }
    int fd = socket(list->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool known = fd >= 0 && connect(fd, list->ai_addr, list->ai_addrlen) == 0 &&
                 getsockname(fd, (struct sockaddr *)&own, &size) == 0 &&
                 getnameinfo((struct sockaddr *)&own, size, out, NI_MAXHOST, NULL, 0,
                             NI_NUMERICHOST) == 0;
    if (fd >= 0) {
        close(fd);
    }
    freeaddrinfo(list);
    return known ? DK_OK
                 : dk_fail(err, DK_NETWORK, "no network of this host leads to '%s'", address);
}

/* Where the ranks of a replica meet, which its leader tells the others. */
static dk_status print_own_meeting(char out[ADDRESS_BYTES], const dk_replicas *r, int replica,
                                   dk_error *err)
{
    char host[NI_MAXHOST], unused[ADDRESS_BYTES];
    if (is_local(r->launch.address)) {
        print_beside(out, r->launch.address, "of", replica, 0);
        return DK_OK;
    }
    DK_TRY(own_host(host, r->launch.address, err));
    bool six = strchr(host, ':') != NULL;
    int port = take_apart(unused, r->launch.address);
    snprintf(out, ADDRESS_BYTES, "%s%.256s%s:%d", six ? "[" : "", host, six ? "]" : "",
             port + r->layout.dp + replica);
    return DK_OK;
}

/* For this process and those that it starts: a world of one replica. */
static void settle_in(const dk_replicas *r, int rank, const char *address)
{
    char host[ADDRESS_BYTES], text[16];
    snprintf(text, sizeof text, "%d", rank);
    setenv("RANK", text, 1);
    snprintf(text, sizeof text, "%d", dk_layout_replica_ranks(&r->layout));
    setenv("WORLD_SIZE", text, 1);
    if (is_local(address)) {
        setenv("MASTER_ADDR", address, 1);
    } else {
        snprintf(text, sizeof text, "%d", take_apart(host, address));
        setenv("MASTER_ADDR", host, 1);
        setenv("MASTER_PORT", text, 1);
    }
}

/* What a thread that expects a replica has; it lives as long as the process does. */
typedef struct expecting {
    char address[ADDRESS_BYTES], key[128], introduction[64];
    int ranks; /* with rank 0's process, which is rank 0 of this meeting */
    dk_progress progress;
    dk_log log;
} expecting;

static dk_status introduce(const expecting *e, brought *all, dk_error *err)
{
    dk_introduction i;
    bool is_empty = true;
    while (is_empty) { /* the scheduler is about to start */
        DK_TRY(dk_introduction_load(&i, &is_empty, e->introduction, err));
        usleep(is_empty ? LOOK_MS * 1000 : 0);
    }
    dk_rendezvous *meeting;
    const dk_rendezvous_options options = {
        .address = e->address, .key = e->key, .ranks = e->ranks, .deadline_ms = 1e300};
    DK_TRY(dk_rendezvous_open(&meeting, &options, err));
    dk_string text = DK_STRING_EMPTY;
    dk_introduction_write(&text, &i, false);
    brought mine = {.address = ""};
    snprintf(mine.introduction, sizeof mine.introduction, "%s", dk_string_text(&text));
    dk_string_release(&text);
    dk_status status = dk_rendezvous_exchange(meeting, all, &mine, sizeof mine,
                                              dk_now_ms() + MEETING_S * 1e3, err);
    dk_rendezvous_close(&meeting);
    return status;
}

static void *expect(void *argument)
{
    const expecting *e = argument;
    brought *all = dk_alloc((size_t)e->ranks * sizeof *all);
    dk_error last = {0};
    for (;;) {
        dk_error error = {0};
        if (introduce(e, all, &error) != DK_OK) {
            if (strcmp(error.message, last.message) != 0) {
                dk_log_warn(&e->log, "expecting a replica: %s", error.message);
            }
            last = error;
            usleep(AGAIN_MS * 1000);
        }
    }
    return NULL;
}

/* In rank 0's process, for every other replica. */
static dk_status expect_replicas(const dk_replicas *r, dk_log_level level, dk_error *err)
{
    for (int replica = 1; replica < r->layout.dp; replica++) {
        pthread_t thread;
        expecting *e = dk_alloc(sizeof *e);
        print_introducing(e->address, r, replica);
        snprintf(e->key, sizeof e->key, "%s", r->launch.key);
        snprintf(e->introduction, sizeof e->introduction, "%s", r->introduction);
        e->ranks = dk_layout_replica_ranks(&r->layout) + 1;
        dk_progress_init(&e->progress, level);
        e->log = (dk_log){.write = dk_progress_log, .context = &e->progress, .level = level};
        if (pthread_create(&thread, NULL, expect, e) != 0) {
            dk_free(e);
            return dk_fail(err, DK_MEMORY, "a thread for replica %d does not start", replica);
        }
        pthread_detach(thread);
    }
    return DK_OK;
}

/* A file without a name that only this user may open. */
static dk_status make_introduction(dk_replicas *r, dk_error *err)
{
    int fd = memfd_create("darkroom-introduction", 0);
    if (fd < 0 || fchmod(fd, 0600) != 0) {
        return dk_fail(err, DK_MEMORY, "no memory for what the replicas are told");
    }
    snprintf(r->introduction, sizeof r->introduction, "/proc/%d/fd/%d", (int)getpid(), fd);
    return DK_OK;
}

/* A rank of another replica comes to rank 0's process. address: where its own replica meets. */
static dk_status visit(dk_replicas *r, int replica, int rank, char address[ADDRESS_BYTES],
                       dk_error *err)
{
    char at[ADDRESS_BYTES];
    int ranks = dk_layout_replica_ranks(&r->layout);
    double until_ms = dk_now_ms() + MEETING_S * 1e3;
    dk_rendezvous *meeting;
    brought mine = {.introduction = ""};
    print_introducing(at, r, replica);
    if (rank == 0 && ranks > 1) {
        DK_TRY(print_own_meeting(mine.address, r, replica, err));
    }
    const dk_rendezvous_options options = {.address = at,
                                           .key = r->launch.key,
                                           .rank = rank + 1,
                                           .ranks = ranks + 1,
                                           .deadline_ms = until_ms};
    DK_TRY(dk_rendezvous_open(&meeting, &options, err));
    brought *all = dk_alloc((size_t)options.ranks * sizeof *all);
    dk_status status = dk_rendezvous_exchange(meeting, all, &mine, sizeof mine, until_ms, err);
    dk_rendezvous_close(&meeting);
    if (status == DK_OK) {
        all[0].introduction[sizeof all[0].introduction - 1] = '\0';
        status = dk_introduction_read(&r->told, all[0].introduction, err);
        snprintf(address, ADDRESS_BYTES, "%.*s", ADDRESS_BYTES - 1, all[1].address);
    }
    dk_free(all);
    return status;
}

static dk_status meet_apart(dk_replicas *r, dk_engine_setup *setup, dk_error *err)
{
    int rank;
    dk_place place = dk_replicas_place(r, &rank);
    char address[ADDRESS_BYTES];
    snprintf(address, sizeof address, "%s", r->launch.address);
    if (address[0] == '\0') {
        return dk_fail(
            err, DK_INVALID,
            "rank %d of %d: MASTER_ADDR and MASTER_PORT must say where rank 0 is met",
            r->launch.rank, r->launch.ranks);
    }
    if (place.dp > 0) {
        DK_TRY(visit(r, place.dp, rank, address, err));
    }
    settle_in(r, rank, address);
    if (r->launch.rank == 0) {
        return expect_replicas(r, setup->options.log_level, err);
    }
    dk_ranks_replica_options(&setup->options, &r->layout);
    return DK_OK;
}

/* MASTER_PORT and those behind it: replicas are introduced at the first ones, the scheduler has
   the next, and replicas of several ranks meet at the rest. */
static dk_status check_ports(const dk_replicas *r, dk_error *err)
{
    enum { MOST = 65535 };
    char host[ADDRESS_BYTES];
    const char *address = r->launch.address;
    bool uses = address[0] != '\0' && !is_local(address) && !r->by_mpi;
    int dp = r->layout.dp, more = dk_layout_replica_ranks(&r->layout) > 1 ? 2 * dp - 1 : dp;
    int port = uses ? take_apart(host, address) : 1;
    return port >= 1 && port + more <= MOST
               ? DK_OK
               : dk_fail(err, DK_INVALID,
                         "MASTER_PORT is %d, and %d replicas use the %d ports behind it too: "
                         "accepted are 1 to %d",
                         port, dp, more, MOST - more);
}

dk_status dk_replicas_meet(dk_replicas *out, const dk_layout *layout, dk_engine_setup *setup,
                           dk_error *err)
{
    *out = (dk_replicas){
        .layout = *layout, .by_mpi = dk_replicas_by_mpi(&setup->options), .setup = setup};
    dk_launch_read(&out->launch);
    choose_workers_address(out);
    DK_TRY(check_ports(out, err));
    if (out->launch.rank == 0) {
        DK_TRY(make_introduction(out, err));
    }
    return out->by_mpi ? DK_OK : meet_apart(out, setup, err);
}

void dk_replicas_add_words(const dk_replicas *r, dk_command_line *scheduler)
{
    char word[512];
    snprintf(word, sizeof word, "--introduction=%s", r->introduction);
    dk_command_line_add(scheduler, word);
    snprintf(word, sizeof word, "--workers-address=%s", r->workers_address);
    dk_command_line_add(scheduler, word);
}

void dk_worker_command_line(dk_command_line *out, const dk_scheduler_options *scheduler,
                            const dk_engine_options *options, const dk_layout *layout,
                            bool one_world)
{
    char every[64];
    dk_engine_options own = *options;
    snprintf(every, sizeof every, "--checkpoint-every-s=%.17g", scheduler->checkpoint_every_s);
    dk_command_line_init(out, "worker");
    dk_command_line_add(out, every);
    if (!one_world) {
        dk_ranks_replica_options(&own, layout);
    }
    dk_command_line_add_fields(out, &dk_option_parameters, &own);
    dk_command_line_add_fields(out, &dk_rank_parameters, &own);
}

dk_status dk_replicas_lead(const dk_replicas *r, const dk_scheduler_options *scheduler,
                           const dk_log *log, dk_error *err)
{
    int rank;
    char word[64];
    const dk_launch *l = &r->launch;
    dk_command_line line;
    dk_worker_command_line(&line, scheduler, &r->setup->options, &r->layout, r->by_mpi);
    snprintf(word, sizeof word, "--worker-index=%d", l->local_rank > 0 ? l->local_rank : 0);
    dk_command_line_add(&line, word);
    snprintf(word, sizeof word, "--worker-count=%d", l->local_ranks > 0 ? l->local_ranks : 1);
    dk_command_line_add(&line, word);
    snprintf(word, sizeof word, "--parent-pid=%d", (int)getpid());
    dk_command_line_add(&line, word);
    const dk_relay_options options = {.replica = dk_replicas_place(r, &rank).dp,
                                      .worker_argv = (const char *const *)line.words,
                                      .introduction = r->by_mpi ? NULL : &r->told,
                                      .once =
                                          r->by_mpi || dk_layout_replica_ranks(&r->layout) > 1,
                                      .folder = dk_run_folder_base(),
                                      .log = log};
    dk_status status = dk_relay_run(&options, err);
    dk_command_line_release(&line);
    return status;
}
