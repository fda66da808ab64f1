/* dk_engine_options' part about several ranks, as a parameter table. */
#include "engine/rank_parameters.h"

#include "comm/groups.h"
#include "darkroom/darkroom.h"

#define DEGREE(field, usual, line)                                                             \
    {                                                                                          \
        .name = #field, .type = DK_PARAMETER_INT,                                              \
        .offset = offsetof(dk_engine_options, field), .max = DK_COMM_MOST_RANKS,               \
        .default_text = usual, .help = line                                                    \
    }

static const dk_parameter parameters[] = {
    {.name = "num_gpus",
     .type = DK_PARAMETER_INT,
     .offset = offsetof(dk_engine_options, num_gpus),
     .min = 1,
     .max = DK_COMM_MOST_RANKS,
     .default_text = "1",
     .help = "ranks: processes with a device each, or with --device cpu a share of the cores; "
             "dp_size x (2 with enable_cfg_parallel) x sp_degree x tp_size of them"},
    DEGREE(dp_size, "serve without other degrees: num_gpus; else 1",
           "replicas, which take different requests"),
    DEGREE(sp_degree, "what the other degrees leave",
           "ranks that share one request's sequence: ulysses_degree x ring_degree"),
    DEGREE(ulysses_degree, "sp_degree", "of sp_degree, the ranks that exchange rows for heads"),
    DEGREE(ring_degree, "1",
           "of sp_degree, the ranks that pass keys and values on; more than a model has heads "
           "may do so"),
    DEGREE(tp_size, "1", "ranks that share every layer: its heads, columns and rows"),
    {.name = "enable_cfg_parallel",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(dk_engine_options, enable_cfg_parallel),
     .default_text = "false",
     .help = "the two passes of guidance side by side, on ranks of their own"},
    {.name = "use_fsdp_inference",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(dk_engine_options, use_fsdp_inference),
     .default_text = "false",
     .help = "ranks with the same weights (sp_degree x cfg) keep a part of each of the "
             "transformer's layers, which is whole while it is used"},
    DEGREE(
        hsdp_shard_dim, "all of them",
        "with use_fsdp_inference: how many ranks share a layer out, a divisor of sp_degree x "
        "cfg"),
    {.name = "distributed_backend",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(dk_engine_options, distributed_backend),
     .max = 31,
     .unit = "auto|shm|mpi|xccl",
     .default_text = "auto",
     .help = "what ranks talk through: shared memory of one host, MPI, or oneCCL (xccl)"},
    {.name = "dist_timeout",
     .type = DK_PARAMETER_REAL,
     .offset = offsetof(dk_engine_options, dist_timeout),
     .max = 1e6,
     .unit = "S",
     .default_text = "300",
     .help = "how long a call between ranks may take before it fails, naming who is missing; "
             "0: the default"},
};

const dk_parameter_table dk_rank_parameters = {
    .title = "Several ranks",
    .parameters = parameters,
    .count = sizeof parameters / sizeof *parameters,
};
