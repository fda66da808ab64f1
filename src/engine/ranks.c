/* Ranks of an engine. */
#include "engine/ranks.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/string.h"
#include "engine/alike.h"

enum { MOST_TEXT_BYTES = 1 << 26 };

/* Where the world's ranks are on one host: a further communicator of all of them, through
   shared memory, whose calls wait for none of the world's. */
static dk_status open_beside(dk_comm **out, const char *name, const dk_comm_options *options,
                             dk_error *err)
{
    const char *address = options->address;
    if (address == NULL || !dk_starts_with(address, "unix:")) {
        return DK_OK;
    }
    dk_string other = DK_STRING_EMPTY;
    dk_string_printf(&other, "%s-%s", address, name);
    dk_comm_options beside = *options;
    beside.backend = "shm";
    beside.lane = NULL;
    beside.address = other.data;
    dk_status status = dk_comm_open(out, &beside, err);
    dk_string_release(&other);
    return status;
}

/* oneCCL's threads spin while they wait, and its calls cost more than a word is worth: small
   messages and orders go through shared memory. Weights on their way would hold up what a block
   exchanges, and lie on the host: shared memory has a thread for them alone. */
static dk_status open_quiet(dk_ranks *ranks, const dk_comm_options *options, dk_error *err)
{
    return strcmp(dk_comm_backend(ranks->world), "xccl") == 0
               ? open_beside(&ranks->quiet, "quiet", options, err)
               : DK_OK;
}

static dk_status open_weights(dk_ranks *ranks, const dk_comm_options *options, dk_error *err)
{
    bool shares =
        strcmp(dk_comm_backend(ranks->world), "shm") == 0 || dk_comm_lane(ranks->world) != NULL;
    return shares ? open_beside(&ranks->weights, "weights", options, err) : DK_OK;
}

/* For small messages of all ranks. */
static dk_comm *all_of(const dk_ranks *ranks)
{
    return ranks->quiet != NULL ? ranks->quiet : ranks->world;
}

static const char *or_else(const char *text, const char *otherwise)
{
    return text != NULL ? text : otherwise;
}

/* Before anything is called that depends on them. */
static dk_status compare_options(const dk_ranks *ranks, const dk_layout *l, int shards,
                                 const dk_engine_options *options, dk_error *err)
{
    dk_fact facts[5];
    int count = 0;
    dk_fact_set(&facts[count++], "the layout", "dp %d, cfg %d, ring %d, ulysses %d, tp %d",
                l->dp, l->cfg, l->ring, l->ulysses, l->tp);
    dk_fact_set(&facts[count++], "the number of ranks that share weights out", "%d", shards);
    dk_fact_set(&facts[count++], "dtype", "%s", or_else(options->dtype, "bf16"));
    dk_fact_set(&facts[count++], "quantization", "%s", or_else(options->quantization, "none"));
    dk_fact_set(&facts[count++], "attention_backend", "%s",
                or_else(options->attention_backend, "auto"));
    return dk_facts_compare(facts, count, all_of(ranks), err);
}

/* What this program starts on one host comes to the meeting within the time of a call; who is
   started by others, or by hand, has the usual minute. */
static double start_seconds(const dk_engine_options *options)
{
    bool ours = options->rank_address != NULL && dk_starts_with(options->rank_address, "unix:");
    return ours && options->dist_timeout > 0 && options->dist_timeout < DK_COMM_START_S
               ? options->dist_timeout
               : 0;
}

/* oneCCL works on the device's memory where it is asked for by name, and on GPUs, whose memory
   the host cannot address. A device that is not there is reported when it is opened, on all
   ranks. NULL: calls work on the host's memory. */
static dk_device_lane *open_lane(const dk_engine_options *options, const dk_log *log)
{
    const char *device = options->device;
    const char *backend = dk_comm_spell_backend(options->distributed_backend);
    if (device == NULL || strcmp(device, "cpu") == 0) {
        return NULL;
    }
    dk_device_lane *lane = NULL;
    dk_error err;
    bool wanted = strcmp(backend, "xccl") == 0 ||
                  (strcmp(backend, "auto") == 0 && strcmp(device, "xpu:cpu") != 0);
    if (wanted && dk_device_lane_open(&lane, device, &err) != DK_OK) {
        dk_log_warn(log, "ranks communicate through host memory: %s", err.message);
    }
    return lane;
}

/* shards: ranks that share weights out; 0: none do. */
static dk_status form(dk_ranks *ranks, const dk_layout *layout, int shards, dk_error *err)
{
    DK_TRY(dk_groups_create(&ranks->groups, ranks->world, layout, err));
    if (shards > 0) {
        DK_TRY(dk_groups_shard(&ranks->groups, ranks->weights, shards, err));
    }
    dk_comm *all = all_of(ranks);
    int rank = dk_comm_rank(all), dp = ranks->groups.place.dp;
    DK_TRY(dk_comm_split(&ranks->control, all, dp, rank, "control", err));
    DK_TRY(dk_comm_split(&ranks->orders, all, dp, rank, "orders", err));
    if (dk_comm_rank(ranks->orders) !=
        0) { /* the next order comes when it comes; whoever gives it finds who hangs */
        dk_comm_set_deadline(ranks->orders, INFINITY);
    }
    if (layout->dp > 1) {
        int leads = dk_comm_rank(ranks->orders) == 0 ? 0 : -1;
        DK_TRY(dk_comm_split(&ranks->leaders, all, leads, rank, "leaders", err));
    }
    if (ranks->leaders != NULL) {
        dk_comm_set_deadline(ranks->leaders, INFINITY);
    }
    ranks->parallel = (dk_nn_parallel){
        .groups = &ranks->groups, .control = ranks->control, .orders = ranks->orders};
    return DK_OK;
}

dk_status dk_ranks_check_shards(int *shards, const dk_layout *layout,
                                const dk_engine_options *options, dk_error *err)
{
    *shards = 0;
    if (options->use_fsdp_inference && dk_layout_replica_ranks(layout) > 1) {
        return dk_layout_shards(shards, layout, options->hsdp_shard_dim, err);
    }
    return options->hsdp_shard_dim == 0 || options->use_fsdp_inference
               ? DK_OK
               : dk_fail(err, DK_INVALID,
                         "hsdp_shard_dim is %d, but use_fsdp_inference is off: accepted are 0, "
                         "or use_fsdp_inference as well",
                         options->hsdp_shard_dim);
}

static dk_status layout_of(dk_layout *out, const dk_engine_options *options, bool one_replica,
                           dk_error *err)
{
    const dk_layout_request request = {.num_gpus = options->num_gpus,
                                       .dp_size = options->dp_size,
                                       .sp_degree = options->sp_degree,
                                       .ulysses_degree = options->ulysses_degree,
                                       .ring_degree = options->ring_degree,
                                       .tp_size = options->tp_size,
                                       .cfg_parallel = options->enable_cfg_parallel,
                                       .one_replica = one_replica};
    DK_TRY(dk_layout_resolve(out, &request, err));
    return dk_comm_check_backend(options->distributed_backend, dk_layout_replica_ranks(out),
                                 err);
}

dk_status dk_ranks_layout(dk_layout *out, const dk_engine_options *options, dk_error *err)
{
    return layout_of(out, options, false, err);
}

dk_status dk_ranks_layout_alone(dk_layout *out, const dk_engine_options *options, dk_error *err)
{
    if (options->dp_size > 1) {
        return dk_fail(
            err, DK_INVALID,
            "dp_size is %d: replicas take different requests, which is what darkroom "
            "serve has; accepted here is 1",
            options->dp_size);
    }
    return layout_of(out, options, true, err);
}

dk_status dk_ranks_open(dk_ranks **out, const dk_engine_options *options, const dk_log *log,
                        dk_error *err)
{
    dk_layout layout;
    int shards;
    *out = NULL;
    DK_TRY(dk_ranks_layout(&layout, options, err));
    DK_TRY(dk_ranks_check_shards(&shards, &layout, options, err));
    if (options->use_fsdp_inference && shards == 0) {
        dk_log_warn(log,
                    "use_fsdp_inference changes nothing: a replica is one rank, which keeps "
                    "all weights");
    }
    int world = dk_layout_replica_ranks(&layout) * layout.dp;
    if (world == 1) {
        return DK_OK;
    }
    const dk_comm_options comm = {.backend = options->distributed_backend,
                                  .rank = options->rank,
                                  .ranks = world,
                                  .address = options->rank_address,
                                  .key = options->rank_key,
                                  .start_s = start_seconds(options),
                                  .deadline_s = options->dist_timeout,
                                  .probe = true,
                                  .lane = open_lane(options, log),
                                  .log = log};
    dk_ranks *ranks = dk_alloc(sizeof *ranks);
    dk_status status = dk_comm_open(&ranks->world, &comm, err);
    if (status == DK_OK) {
        status = open_quiet(ranks, &comm, err);
    }
    if (status == DK_OK) {
        status = compare_options(ranks, &layout, shards, options, err);
    }
    if (status == DK_OK && shards > 0) {
        status = open_weights(ranks, &comm, err);
    }
    if (status == DK_OK) {
        status = form(ranks, &layout, shards, err);
    }
    if (status != DK_OK) {
        dk_ranks_close(&ranks);
        return status;
    }
    dk_log_info(log, "rank %d of %d over %s%s: dp %d, cfg %d, ring %d, ulysses %d, tp %d",
                dk_comm_rank(ranks->world), world, dk_comm_backend(ranks->world),
                dk_comm_lane(ranks->world) != NULL ? " on the device's queue" : "", layout.dp,
                layout.cfg, layout.ring, layout.ulysses, layout.tp);
    *out = ranks;
    return DK_OK;
}

bool dk_ranks_lead(const dk_ranks *ranks)
{
    return ranks == NULL || dk_comm_rank(ranks->groups.replica) == 0;
}

bool dk_ranks_are_several(const dk_ranks *ranks)
{
    return ranks != NULL && dk_comm_ranks(ranks->groups.replica) > 1;
}

bool dk_ranks_are_busy(const dk_ranks *ranks)
{
    return dk_comm_is_busy(ranks->world) ||
           (ranks->quiet != NULL && dk_comm_is_busy(ranks->quiet)) ||
           (ranks->weights != NULL && dk_comm_is_busy(ranks->weights));
}

void dk_ranks_set_trace(dk_ranks *ranks, dk_trace *trace)
{
    dk_comm_set_trace(ranks->world, trace, DK_TRACE_COMMUNICATION);
    if (ranks->weights != NULL) {
        dk_comm_set_trace(ranks->weights, trace, DK_TRACE_WEIGHTS);
    }
}

/* A length, then the text; length 0: the end. */
static dk_status tell(dk_comm *comm, const char *text, uint64_t length, dk_error *err)
{
    DK_TRY(dk_comm_broadcast(comm, &length, sizeof length, 0, err));
    return length > 0 ? dk_comm_broadcast(comm, (void *)(uintptr_t)text, length, 0, err)
                      : DK_OK;
}

/* *text: owned; NULL: the end. */
static dk_status listen_to(dk_comm *comm, char **text, dk_error *err)
{
    uint64_t length = 0;
    void *copy;
    *text = NULL;
    DK_TRY(dk_comm_broadcast(comm, &length, sizeof length, 0, err));
    if (length == 0) {
        return DK_OK;
    }
    if (length > MOST_TEXT_BYTES) {
        return dk_fail(err, DK_INTERNAL, "%s: a text of %llu bytes from the leader",
                       dk_comm_name(comm), (unsigned long long)length);
    }
    DK_TRY(dk_try_alloc(&copy, length + 1, "an order", err));
    dk_status status = dk_comm_broadcast(comm, copy, length, 0, err);
    if (status != DK_OK) {
        dk_free(copy);
        return status;
    }
    ((char *)copy)[length] = '\0';
    *text = copy;
    return DK_OK;
}

dk_status dk_ranks_tell(dk_ranks *ranks, const char *text, dk_error *err)
{
    return tell(ranks->orders, text, strlen(text), err);
}

dk_status dk_ranks_listen(dk_ranks *ranks, char **text, dk_error *err)
{
    return listen_to(ranks->orders, text, err);
}

dk_status dk_ranks_announce(dk_ranks *ranks, const char *mine, char **told, dk_error *err)
{
    *told = NULL;
    if (ranks == NULL || ranks->leaders == NULL) {
        return DK_OK;
    }
    return dk_comm_rank(ranks->leaders) == 0 ? tell(ranks->leaders, mine, strlen(mine), err)
                                             : listen_to(ranks->leaders, told, err);
}

dk_status dk_ranks_agree(dk_ranks *ranks, dk_status mine, dk_error *err)
{
    int32_t most = (int32_t)mine;
    if (ranks == NULL) {
        return mine;
    }
    dk_status told = dk_comm_all_reduce(ranks->control, &most, DK_I32, 1, DK_REDUCE_MAX,
                                        mine == DK_OK ? err : NULL);
    if (mine != DK_OK || told != DK_OK) {
        return mine != DK_OK ? mine : told;
    }
    return most == DK_OK ? DK_OK : dk_nn_fail_elsewhere(err, (dk_status)most);
}

void dk_ranks_close(dk_ranks **ranks)
{
    dk_ranks *r = *ranks;
    if (r == NULL) {
        return;
    }
    if (r->orders != NULL && dk_ranks_lead(r)) {
        dk_status ended = tell(r->orders, "", 0, NULL); /* those that are lost need no word */
        (void)ended;
    }
    dk_comm_close(&r->leaders);
    dk_comm_close(&r->orders);
    dk_comm_close(&r->control);
    dk_comm_close(&r->quiet);
    dk_groups_release(&r->groups);
    dk_comm_close(&r->weights);
    dk_comm_close(&r->world);
    dk_free(r);
    *ranks = NULL;
}
