/* The service behind the API: stored jobs go to the scheduler, their frames come back, are
   encoded and stored, and whoever watches is told. It knows nothing of HTTP.

   Threads: one holds the link to the scheduler (and starts the scheduler again when it dies),
   a few finish outputs. All functions may be called from any thread. */
#ifndef DK_SERVER_SERVICE_SERVICE_H
#define DK_SERVER_SERVICE_SERVICE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/log.h"
#include "server/jobs/jobs.h"
#include "server/service/metrics.h"
#include "server/service/watch.h"
#include "server/wire/link.h"

typedef struct dk_service dk_service;

typedef struct dk_service_options {
    dk_jobs *jobs;                     /* borrowed */
    const char *run_folder;            /* for the link's socket; mode 0700 */
    const char *const *scheduler_argv; /* program and arguments up to "--endpoint=…", which is
                                          added; NULL: the scheduler runs elsewhere, at: */
    const char *scheduler_endpoint;
    const dk_link_keys *keys; /* for that one; may be NULL */
    int max_queue;            /* waiting jobs; more are refused */
    double max_memory_gb;     /* of one worker; 0: what the machine has */
    int finishing_threads;
    const dk_log *log;
} dk_service_options;

/* Owned. */
DK_MUST_USE dk_status dk_service_start(dk_service **out, const dk_service_options *options,
                                       dk_error *err);
/* Nothing new starts; waits until what runs has ended and is stored, or drain_ms passed, or
 *hurry becomes true. */
void dk_service_drain(dk_service *service, double drain_ms, const volatile int *hurry);
/* Ends the link and the finishing, and tells everybody who watches; submit then says DK_BUSY.
 */
void dk_service_end(dk_service *service);
void dk_service_stop(dk_service **service);

dk_jobs *dk_service_jobs(const dk_service *service);
dk_metrics *dk_service_metrics(dk_service *service);

/* Whether some worker has the model open; a reason why none ever will (DK_OK: none). */
bool dk_service_is_ready(dk_service *service);
dk_status dk_service_fatal(dk_service *service, dk_error *err);

/* The scheduler's last report (see docs/protocol.md), and what the first worker told of itself
   ("model", "device", "pipeline", "defaults"). Owned references to what must not be changed;
   NULL: nothing yet. */
json_t *dk_service_report(dk_service *service);
json_t *dk_service_model(dk_service *service);

/* Stores and queues. order->request is
     {"parameters": {…}, "output_format": "png", "output_quality": 0,
      "inputs": {"image_path": "input-image.png"}, "plan": {…}}
   with "parameters" as dk_request has them, but for seed and file names. DK_BUSY: the queue is
   full; DK_MEMORY: the service ends. */
DK_MUST_USE dk_status dk_service_submit(dk_service *service, const dk_job_order *order,
                                        char **id, bool *again, dk_error *err);
/* A job that ended already stays as it is: *ended is false. */
DK_MUST_USE dk_status dk_service_cancel(dk_service *service, const char *id, bool *ended,
                                        dk_error *err);
DK_MUST_USE dk_status dk_service_delete(dk_service *service, const char *id, dk_error *err);

/* What a request would take; parameters as above. Waits for a worker's answer, but kept answers
   come at once. *plan: {"weight_bytes", "peak_bytes", "flops", "step_flops", "seconds",
   "step_seconds", "joins", "num_frames", "budget_bytes", "fits"}. Owned. DK_MEMORY: no worker
   is ready. */
DK_MUST_USE dk_status dk_service_plan(dk_service *service, const json_t *parameters,
                                      json_t **plan, dk_error *err);

/* Calls fn with what happens to a job, in order, last DK_NOTE_END (at once when the job has
   ended or is unknown). fn must not call the service, but for END, which comes without any
   lock held. When fn returns false it is called no more. */
void dk_service_watch(dk_service *service, const char *id, dk_watch_fn *fn, void *context);

/* How a job stands; false when it is not in flight. */
bool dk_service_progress(dk_service *service, const char *id, dk_progress_note *out);

#endif
