/* The scheduler process: one queue, the workers and their life. Clients (the server, the SDK)
   talk to it over ZeroMQ, workers over socket pairs. It computes nothing and stores nothing:
   who accepted a task keeps it until its one final reply (result or error) came. */
#ifndef DK_SERVER_SCHEDULER_SCHEDULER_H
#define DK_SERVER_SCHEDULER_SCHEDULER_H

#include "base/log.h"
#include "base/parameter.h"
#include "server/wire/link.h"

typedef struct dk_scheduler_options {
    int replicas; /* workers, each of them the first rank of a replica; no flag: the layout
                     tells */
    int batching_max_size;
    double batching_delay_ms;
    double checkpoint_every_s;
    double watchdog_factor, watchdog_min_s;
    int max_retries;
} dk_scheduler_options;

void dk_scheduler_options_init(dk_scheduler_options *options);
extern const dk_parameter_table dk_scheduler_parameters;

typedef struct dk_scheduler_setup {
    const dk_scheduler_options *options;
    const char *endpoint;
    const dk_link_keys *keys;       /* may be NULL */
    const char *const *worker_argv; /* program and arguments, NULL-ended; the worker's socket is
                                       file descriptor 3 */
    bool once; /* other ranks were started by a launcher, and end with any worker: when one is
                  lost, all ends */
    /* Replicas that a launcher started elsewhere, all but the first. A file of mode 0600, in
       which a scheduler finds what the one before it wrote (wire/introduction.h), and where it
       listens to them: "host:port", either may be "*". NULL: all workers are its own. */
    const char *introduction, *workers_address;
    int cores_of; /* that the first worker's host is shared by; 0: as many as replicas */
    const dk_log *log;
} dk_scheduler_setup;

/* Runs until SIGTERM or SIGINT. */
DK_MUST_USE dk_status dk_scheduler_run(const dk_scheduler_setup *setup, dk_error *err);

#endif
