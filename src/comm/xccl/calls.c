/* The calls, made of oneCCL's: those have one size for all ranks, so that parts of different
   sizes travel in blocks of the largest, through memory of ours. */
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "base/string.h"
#include "comm/reduce.h"
#include "comm/xccl/xccl_transport.h"
#include "tensor/convert.h"

/* What one call of oneCCL moves at most, and what blocks take, over all ranks. */
static const size_t PIECE_BYTES = (size_t)1 << 30, SCRATCH_BYTES = (size_t)16 << 20;
static const char MEMORY_FOR[] = "a call of oneCCL";

static dk_xccl_transport *own(dk_transport *t)
{
    return (dk_xccl_transport *)t;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* "did not end in time" becomes who has not arrived, as far as the board shows it. */
static dk_status name_missing(const dk_xccl_transport *t, uint64_t mine, const dk_comm_at *at,
                              dk_error *err)
{
    const dk_xccl_family *f = t->family;
    dk_string list = DK_STRING_EMPTY;
    int missing = 0;
    for (int i = 0; i < t->base.ranks; i++) {
        int rank = t->world[i];
        if (f->here[rank] && atomic_load(&f->board->begun[t->group][rank]) < mine) {
            dk_string_printf(&list, missing++ > 0 ? ", %d" : "%d", i);
            if (rank != i) {
                dk_string_printf(&list, " (%d of all)", rank);
            }
        }
    }
    dk_status status;
    if (missing > 0) {
        status = dk_fail(err, DK_TIMEOUT, "%s: rank%s %s did not arrive in time", at->what,
                         missing > 1 ? "s" : "", list.data);
    } else {
        status = dk_fail(err, DK_TIMEOUT,
                         "%s: it did not end in time, though all ranks%s have arrived",
                         at->what, f->one_host ? "" : " of this host");
    }
    dk_string_release(&list);
    return status;
}

dk_status dk_xccl_make(dk_xccl_transport *t, onecclComm_t *made, const dk_xccl_call *call,
                       const dk_comm_at *at, dk_error *err)
{
    dk_xccl_family *f = t->family;
    uint64_t mine = 0;
    bool shown = t->group < DK_XCCL_MOST_GROUPS;
    if (shown) {
        mine = 1 + atomic_fetch_add(&f->board->begun[t->group][t->world[t->base.rank]], 1);
    }
    dk_xccl_call staged = *call;
    DK_TRY(dk_xccl_stage(&t->staging, t->base.lane, t->base.ranks, &staged, err));
    dk_status status = dk_xccl_carrier_call(f->carrier, made, &staged, at, err);
    if (status == DK_OK) {
        return dk_xccl_unstage(&t->staging, t->base.lane, err);
    }
    return status == DK_TIMEOUT && shown ? name_missing(t, mine, at, err) : status;
}

static dk_status check_type(dk_dtype type, const dk_comm_at *at, dk_error *err)
{
    if (dk_reduces(type)) {
        return DK_OK;
    }
    return dk_fail(err, DK_UNSUPPORTED,
                   "%s: numbers of type %s, accepted are F32, BF16 and I32", at->what,
                   dk_dtype_name(type));
}

static dk_status reduce_piece(dk_xccl_transport *t, void *data, onecclDataType_t type,
                              size_t count, dk_reduction reduction, const dk_comm_at *at,
                              dk_error *err)
{
    const dk_xccl_call call = {.kind = DK_XCCL_ALL_REDUCE,
                               .comm = t->comm,
                               .src = data,
                               .dst = data,
                               .count = count,
                               .type = type,
                               .reduction = reduction == DK_REDUCE_SUM ? onecclSum : onecclMax};
    return dk_xccl_make(t, NULL, &call, at, err);
}

/* On the host oneCCL would round after every addition: the sum is made in f32. */
static dk_status all_reduce_bf16(dk_xccl_transport *t, uint16_t *data, size_t count,
                                 dk_reduction reduction, const dk_comm_at *at, dk_error *err)
{
    size_t block = smaller(count, SCRATCH_BYTES / sizeof(float));
    DK_TRY(dk_lane_reserve(NULL, &t->scratch, block * sizeof(float), MEMORY_FOR, err));
    float *wide = t->scratch.memory;
    for (size_t begin = 0; begin < count; begin += block) {
        size_t part = smaller(block, count - begin);
        dk_convert_to_f32(wide, data + begin, DK_BF16, (int64_t)part);
        DK_TRY(reduce_piece(t, wide, onecclFloat32, part, reduction, at, err));
        dk_convert_from_f32(data + begin, DK_BF16, wide, (int64_t)part);
    }
    return DK_OK;
}

dk_status dk_xccl_all_reduce(dk_transport *base, void *data, dk_dtype type, size_t count,
                             dk_reduction reduction, const dk_comm_at *at, dk_error *err)
{
    dk_xccl_transport *t = own(base);
    size_t unit = dk_dtype_bytes(type);
    DK_TRY(check_type(type, at, err));
    if (type == DK_BF16 && base->lane == NULL) {
        return all_reduce_bf16(t, data, count, reduction, at, err);
    }
    onecclDataType_t as = type == DK_F32    ? onecclFloat32
                          : type == DK_BF16 ? onecclBfloat16
                                            : onecclInt32;
    for (size_t begin = 0; begin < count; begin += PIECE_BYTES / unit) {
        size_t part = smaller(PIECE_BYTES / unit, count - begin);
        DK_TRY(reduce_piece(t, (char *)data + begin * unit, as, part, reduction, at, err));
    }
    return DK_OK;
}

static bool all_equal(const size_t *sizes, int count)
{
    for (int i = 1; i < count; i++) {
        if (sizes[i] != sizes[0]) {
            return false;
        }
    }
    return true;
}

static size_t sum(const size_t *sizes, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        total += sizes[i];
    }
    return total;
}

/* With parts of different sizes, or in bf16: an all_reduce of which the own part is kept. */
dk_status dk_xccl_reduce_scatter(dk_transport *base, void *dst, const void *src, dk_dtype type,
                                 const size_t *counts, dk_reduction reduction,
                                 const dk_comm_at *at, dk_error *err)
{
    dk_xccl_transport *t = own(base);
    size_t unit = dk_dtype_bytes(type), total = sum(counts, base->ranks);
    DK_TRY(check_type(type, at, err));
    if (type != DK_BF16 && all_equal(counts, base->ranks) && total * unit <= PIECE_BYTES) {
        const dk_xccl_call call = {.kind = DK_XCCL_REDUCE_SCATTER,
                                   .comm = t->comm,
                                   .src = src,
                                   .dst = dst,
                                   .count = counts[0],
                                   .type = type == DK_F32 ? onecclFloat32 : onecclInt32,
                                   .reduction =
                                       reduction == DK_REDUCE_SUM ? onecclSum : onecclMax};
        return total > 0 ? dk_xccl_make(t, NULL, &call, at, err) : DK_OK;
    }
    dk_lane_memory whole = {0};
    DK_TRY(dk_lane_reserve(base->lane, &whole, total * unit, MEMORY_FOR, err));
    dk_lane_copy(base->lane, whole.memory, src, total * unit);
    /* After a failure the call that was left behind has the memory. */
    DK_TRY(dk_xccl_all_reduce(base, whole.memory, type, total, reduction, at, err));
    dk_lane_copy(base->lane, dst, (char *)whole.memory + sum(counts, base->rank) * unit,
                 counts[base->rank] * unit);
    DK_TRY(dk_lane_wait(base->lane, at->what, err));
    dk_lane_release(base->lane, &whole);
    return DK_OK;
}

static dk_xccl_call of_bytes(const dk_xccl_transport *t, dk_xccl_kind kind, void *dst,
                             const void *src, size_t bytes)
{
    return (dk_xccl_call){.kind = kind,
                          .comm = t->comm,
                          .src = src,
                          .dst = dst,
                          .count = bytes,
                          .type = onecclUint8};
}

dk_status dk_xccl_all_gather(dk_transport *base, void *dst, const void *src,
                             const size_t *bytes, const dk_comm_at *at, dk_error *err)
{
    dk_xccl_transport *t = own(base);
    size_t ranks = (size_t)base->ranks, mine = bytes[base->rank], most = 0;
    const char *own_place = (char *)dst + sum(bytes, base->rank);
    if (all_equal(bytes, base->ranks) && bytes[0] * ranks <= PIECE_BYTES && src != own_place) {
        const dk_xccl_call call = of_bytes(t, DK_XCCL_ALL_GATHER, dst, src, bytes[0]);
        return bytes[0] > 0 ? dk_xccl_make(t, NULL, &call, at, err) : DK_OK;
    }
    for (size_t i = 0; i < ranks; i++) {
        most = bytes[i] > most ? bytes[i] : most;
    }
    size_t block = smaller(most, SCRATCH_BYTES / ranks);
    DK_TRY(dk_lane_reserve(base->lane, &t->scratch, (ranks + 1) * block, MEMORY_FOR, err));
    char *in = t->scratch.memory, *out = in + ranks * block;
    for (size_t begin = 0; begin < most; begin += block) {
        if (mine > begin) {
            dk_lane_copy(base->lane, out, (const char *)src + begin,
                         smaller(block, mine - begin));
        }
        const dk_xccl_call call = of_bytes(t, DK_XCCL_ALL_GATHER, in, out, block);
        DK_TRY(dk_xccl_make(t, NULL, &call, at, err));
        char *place = dst;
        for (size_t i = 0; i < ranks; i++) {
            if (bytes[i] > begin) {
                dk_lane_copy(base->lane, place + begin, in + i * block,
                             smaller(block, bytes[i] - begin));
            }
            place += bytes[i];
        }
    }
    return DK_OK;
}

/* The largest and the smallest part of any two ranks, which each of them alone does not know.
 */
static dk_status agree_on_sizes(dk_xccl_transport *t, size_t *most, size_t *least,
                                const size_t *dst_bytes, const size_t *src_bytes,
                                const dk_comm_at *at, dk_error *err)
{
    size_t high = 0, low = SIZE_MAX;
    for (int i = 0; i < t->base.ranks; i++) {
        size_t larger = dst_bytes[i] > src_bytes[i] ? dst_bytes[i] : src_bytes[i];
        high = larger > high ? larger : high;
        low = smaller(low, smaller(dst_bytes[i], src_bytes[i]));
    }
    t->words[0] = (int64_t)high;
    t->words[1] = -(int64_t)low;
    DK_TRY(reduce_piece(t, t->words, onecclInt64, 2, DK_REDUCE_MAX, at, err));
    *most = (size_t)t->words[0];
    *least = (size_t)-t->words[1];
    return DK_OK;
}

/* Bytes [begin, begin + block) of each part, between parts of their own sizes and blocks. */
static void pack(const dk_transport *t, char *blocks, const char *parts, const size_t *bytes,
                 size_t begin, size_t block)
{
    for (int i = 0; i < t->ranks; i++) {
        if (bytes[i] > begin) {
            dk_lane_copy(t->lane, blocks, parts + begin, smaller(block, bytes[i] - begin));
        }
        blocks += block;
        parts += bytes[i];
    }
}

static void unpack(const dk_transport *t, char *parts, const char *blocks, const size_t *bytes,
                   size_t begin, size_t block)
{
    for (int i = 0; i < t->ranks; i++) {
        if (bytes[i] > begin) {
            dk_lane_copy(t->lane, parts + begin, blocks, smaller(block, bytes[i] - begin));
        }
        blocks += block;
        parts += bytes[i];
    }
}

dk_status dk_xccl_all_to_all(dk_transport *base, void *dst, const size_t *dst_bytes,
                             const void *src, const size_t *src_bytes, const dk_comm_at *at,
                             dk_error *err)
{
    dk_xccl_transport *t = own(base);
    size_t ranks = (size_t)base->ranks, most, least;
    DK_TRY(agree_on_sizes(t, &most, &least, dst_bytes, src_bytes, at, err));
    if (most == least && most * ranks <= PIECE_BYTES) {
        const dk_xccl_call call = of_bytes(t, DK_XCCL_ALL_TO_ALL, dst, src, most);
        return most > 0 ? dk_xccl_make(t, NULL, &call, at, err) : DK_OK;
    }
    size_t block = smaller(most, SCRATCH_BYTES / ranks);
    DK_TRY(dk_lane_reserve(base->lane, &t->scratch, 2 * ranks * block, MEMORY_FOR, err));
    char *in = t->scratch.memory, *out = in + ranks * block;
    for (size_t begin = 0; begin < most; begin += block) {
        pack(base, out, src, src_bytes, begin, block);
        const dk_xccl_call call = of_bytes(t, DK_XCCL_ALL_TO_ALL, in, out, block);
        DK_TRY(dk_xccl_make(t, NULL, &call, at, err));
        unpack(base, dst, in, dst_bytes, begin, block);
    }
    return DK_OK;
}

dk_status dk_xccl_broadcast(dk_transport *base, void *data, size_t bytes, int root,
                            const dk_comm_at *at, dk_error *err)
{
    dk_xccl_transport *t = own(base);
    for (size_t begin = 0; begin < bytes; begin += PIECE_BYTES) {
        char *piece = (char *)data + begin;
        dk_xccl_call call =
            of_bytes(t, DK_XCCL_BROADCAST, piece, piece, smaller(PIECE_BYTES, bytes - begin));
        call.root = root;
        DK_TRY(dk_xccl_make(t, NULL, &call, at, err));
    }
    return DK_OK;
}

dk_status dk_xccl_send_receive(dk_transport *base, const void *src, size_t src_bytes, int to,
                               void *dst, size_t dst_bytes, int from, const dk_comm_at *at,
                               dk_error *err)
{
    dk_xccl_transport *t = own(base);
    dk_xccl_call call = of_bytes(t, DK_XCCL_MESSAGES, dst, src, src_bytes);
    call.to = src_bytes > 0 ? to : -1;
    call.from = dst_bytes > 0 ? from : -1;
    call.dst_count = dst_bytes;
    return call.to >= 0 || call.from >= 0 ? dk_xccl_make(t, NULL, &call, at, err) : DK_OK;
}

/* oneCCL's C interface has none. */
dk_status dk_xccl_barrier(dk_transport *base, const dk_comm_at *at, dk_error *err)
{
    dk_xccl_transport *t = own(base);
    t->words[0] = 0;
    return reduce_piece(t, t->words, onecclInt64, 1, DK_REDUCE_MAX, at, err);
}
