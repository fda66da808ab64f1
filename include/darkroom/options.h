/* How an engine is opened. Included by darkroom.h. */
#ifndef DARKROOM_OPTIONS_H
#define DARKROOM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "darkroom/error.h"
#include "darkroom/log.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The wish to stop, for callers that may want to stop before there is an engine (downloads,
   loading) or several engines at once. Owned; destroyed after the engines that use it. */
typedef struct dk_cancel dk_cancel;
dk_cancel *dk_cancel_create(void);
void dk_cancel_destroy(dk_cancel **cancel);
void dk_cancel_request(dk_cancel *cancel); /* from any thread and from signal handlers */

/* Start from dk_engine_options_init. Strings are borrowed during dk_engine_open. */
typedef struct dk_engine_options {
    const char *model_path;        /* a folder in diffusers layout, or a hub name "org/model" */
    const char *model_name;        /* what recipes call the model; NULL: model_path */
    const char *device;            /* "cpu", "xpu", "xpu:N", "xpu:cpu": docs/xpu.md */
    const char *dtype;             /* "bf16": fast; "f32": for comparisons */
    const char *quantization;      /* of the transformer's linear layers: "int8", and on xpu
                                      "int8-weights", "int4-weights", "fp8-weights"; "none" or
                                      NULL */
    double quantization_max_error; /* layers that err more (relative RMS of the output) keep
                                      their stored type; NAN: a bound of the kind's own */
    const char *cpu_level;         /* highest instruction set: "c", "avx2", "avxvnni", "avx512",
                                      "avx512bf16", "amx"; NULL: what the CPU has */
    const char *attention_backend; /* "flash", "sage" (int8 scores), "reference" (f32);
                                      "auto" or NULL: flash */
    int threads;                   /* 0: one per core */
    const char *pin_threads;       /* "none", "nodes" (NUMA), "cores"; "auto" or NULL: nodes
                                      where there are several */
    /* Weights that are on the device only while they are needed (xpu; the CPU reads them where
       they lie): of a component as a whole, or layer by layer, ahead of use. */
    bool text_encoder_cpu_offload, image_encoder_cpu_offload, vae_cpu_offload, dit_cpu_offload;
    bool dit_layerwise_offload;
    bool pin_cpu_memory;   /* their copies on the host in memory that the device reads itself */
    int offload_budget_mb; /* device memory for layers; 0: a quarter of the weights */
    const char *text_encoder_device; /* "cpu": prompts are encoded there, also ahead of their
                                        turn (dk_engine_prepare); "same" or NULL: on device */
    bool enable_compile, enable_torch_compile; /* either: as warmup_mode "server" */
    const char *warmup_mode; /* "server": two steps of every size of warmup_resolutions are made
                                while opening, so that no request pays for preparing;
                                "request": two steps of a size before its first request; "off":
                                that request prepares as it goes; NULL: "server" with
                                enable_compile or warmup_resolutions, else "off" */
    const char *warmup_resolutions; /* "832x480x81,1024x1024": width, height, frames (else 1);
                                       NULL: the model's usual size */
    /* Several ranks, processes with a device each, that make requests together:
       docs/parallel.md. All zero or NULL: one. Degrees of 0 are worked out. */
    int num_gpus, dp_size, sp_degree, ulysses_degree, ring_degree, tp_size;
    bool enable_cfg_parallel;        /* the two passes of guidance on ranks of their own */
    bool use_fsdp_inference;         /* weights shared out among ranks that have the same */
    int hsdp_shard_dim;              /* how many of them share one; 0: all */
    const char *distributed_backend; /* "auto" or NULL, "shm", "mpi", "xccl" */
    double dist_timeout;             /* seconds that a call between ranks may take; 0: 300 */
    int rank;                        /* which one this process is */
    const char *rank_address;        /* where the ranks meet: "host:port", "unix:@name" */
    const char *rank_key;            /* what they know each other by; NULL: "" */
    int embedding_cache_mb; /* memory for embeddings of prompts that come again; 0: off */
    const char *embedding_cache_path; /* folder for more of them; NULL: none */
    const char *hub_cache; /* folder of downloaded models; NULL: hub names are refused */
    const char *hub_endpoint, *hub_token; /* NULL: huggingface.co, none */
    bool offline;                         /* never download */
    const char *trace_path; /* file of Chrome's trace events: what ran when; NULL: none */
    int trace_rank;         /* which process of several writes it, from 0 */
    dk_log_fn *log;         /* NULL: silence */
    void *log_context;
    dk_log_level log_level;
    /* Bytes of a download; NULL: not told. */
    void (*download)(void *context, const char *file, uint64_t done, uint64_t total);
    void *download_context;
    dk_cancel *cancel; /* stops opening and generating; borrowed until the engine is closed;
                          NULL: the engine makes its own, for dk_engine_cancel */
} dk_engine_options;

void dk_engine_options_init(dk_engine_options *options);

#ifdef __cplusplus
}
#endif

#endif
