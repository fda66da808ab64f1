/* What a call reads and writes, by its kind. */
#include "comm/xccl/staging.h"

static const char MEMORY_FOR[] = "a call of oneCCL";

static size_t unit_of(onecclDataType_t type)
{
    switch (type) {
    case onecclUint8:
        return 1;
    case onecclBfloat16:
        return 2;
    case onecclInt64:
        return 8;
    default:
        return 4;
    }
}

typedef struct sizes {
    size_t src, dst;
} sizes;

static sizes sizes_of(const dk_xccl_call *c, int ranks)
{
    size_t one = c->count * unit_of(c->type), all = one * (size_t)ranks;
    switch (c->kind) {
    case DK_XCCL_ALL_REDUCE:
    case DK_XCCL_BROADCAST:
        return (sizes){one, one};
    case DK_XCCL_REDUCE_SCATTER:
        return (sizes){all, one};
    case DK_XCCL_ALL_GATHER:
        return (sizes){one, all};
    case DK_XCCL_ALL_TO_ALL:
        return (sizes){all, all};
    case DK_XCCL_MESSAGES:
        return (sizes){c->to >= 0 ? one : 0, c->from >= 0 ? c->dst_count : 0};
    default:
        return (sizes){0, 0};
    }
}

dk_status dk_xccl_stage(dk_xccl_staging *staging, dk_device_lane *lane, int ranks,
                        dk_xccl_call *call, dk_error *err)
{
    staging->host = NULL;
    if (lane == NULL) {
        return DK_OK;
    }
    const sizes bytes = sizes_of(call, ranks);
    bool in_place = call->src == call->dst;
    if (bytes.src > 0 && !lane->holds(lane, call->src)) {
        dk_lane_memory *memory = in_place ? &staging->dst : &staging->src;
        DK_TRY(dk_lane_reserve(lane, memory, bytes.src, MEMORY_FOR, err));
        dk_lane_copy(lane, memory->memory, call->src, bytes.src);
        call->src = memory->memory;
    }
    if (bytes.dst > 0 && !lane->holds(lane, call->dst)) {
        DK_TRY(dk_lane_reserve(lane, &staging->dst, bytes.dst, MEMORY_FOR, err));
        staging->host = call->dst;
        staging->host_bytes = bytes.dst;
        call->dst = staging->dst.memory;
    }
    return DK_OK;
}

dk_status dk_xccl_unstage(dk_xccl_staging *staging, dk_device_lane *lane, dk_error *err)
{
    if (staging->host == NULL) {
        return DK_OK;
    }
    dk_lane_copy(lane, staging->host, staging->dst.memory, staging->host_bytes);
    return dk_lane_wait(lane, MEMORY_FOR, err);
}
