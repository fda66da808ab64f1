/* Models by name: a name such as "Wan-AI/Wan2.1-T2V-1.3B-Diffusers" becomes a folder, from the
   cache that huggingface_hub shares (its layout is kept) or fetched into it over HTTP. */
#ifndef DK_HUB_HUB_H
#define DK_HUB_HUB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"

/* Called while files arrive, at most about ten times a second and at the end of each file.
   `all_done` and `all_total` count the bytes of the files that this call has to fetch. */
typedef void dk_hub_progress_fn(void *context, const char *file, uint64_t done, uint64_t total,
                                uint64_t all_done, uint64_t all_total);

/* Everything is borrowed for the call. NULL and 0 choose the default. */
typedef struct dk_hub_options {
    const char *cache_folder; /* required for names: HF_HOME/hub as the caller resolved it */
    const char *endpoint;     /* default "https://huggingface.co" */
    const char *token;        /* default none; sent to the endpoint only, never logged */
    const char *revision;     /* branch, tag or commit; default "main" */
    bool offline;             /* answer from the cache or fail; nothing is sent */
    const dk_log *log;
    dk_hub_progress_fn *progress;
    void *progress_context;
    const atomic_bool *cancel; /* set by another thread or a signal handler to stop */
    int retry_base_ms;         /* first pause before a retry, doubled each time; default 1000 */
    int stall_timeout_s;       /* seconds without a byte that end an attempt; default 30 */
} dk_hub_options;

/* *folder (owned, dk_free) is a folder in diffusers layout:
     - `model` itself, when it is the path of an existing folder;
     - the snapshot of the hub name `model` ("org/name") in the cache, when all files that a
       diffusers folder needs are there: no network is used;
     - otherwise the snapshot after the missing files were fetched and their checksums compared.
   An interrupted call (a cancel, a lost network, a killed process) leaves <etag>.incomplete
   files from which the next one goes on. Safe to call from several processes at once. */
DK_MUST_USE dk_status dk_hub_resolve(char **folder, const char *model,
                                     const dk_hub_options *options, dk_error *err);

#endif
