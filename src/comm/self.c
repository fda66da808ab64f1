/* The transport of one rank: what it sends, it receives. */
#include <string.h>

#include "base/alloc.h"
#include "comm/transport.h"

static void copy(void *dst, const void *src, size_t bytes)
{
    if (bytes > 0 && dst != src) {
        memmove(dst, src, bytes);
    }
}

static dk_status all_reduce(dk_transport *t, void *data, dk_dtype type, size_t count,
                            dk_reduction reduction, const dk_comm_at *at, dk_error *err)
{
    (void)t, (void)data, (void)type, (void)count, (void)reduction, (void)at, (void)err;
    return DK_OK;
}

static dk_status reduce_scatter(dk_transport *t, void *dst, const void *src, dk_dtype type,
                                const size_t *counts, dk_reduction reduction,
                                const dk_comm_at *at, dk_error *err)
{
    (void)t, (void)reduction, (void)at, (void)err;
    copy(dst, src, counts[0] * dk_dtype_bytes(type));
    return DK_OK;
}

static dk_status all_gather(dk_transport *t, void *dst, const void *src, const size_t *bytes,
                            const dk_comm_at *at, dk_error *err)
{
    (void)t, (void)at, (void)err;
    copy(dst, src, bytes[0]);
    return DK_OK;
}

static dk_status all_to_all(dk_transport *t, void *dst, const size_t *dst_bytes,
                            const void *src, const size_t *src_bytes, const dk_comm_at *at,
                            dk_error *err)
{
    (void)t;
    if (dst_bytes[0] != src_bytes[0]) {
        return dk_fail(err, DK_INVALID, "%s: %zu bytes are sent, %zu awaited", at->what,
                       src_bytes[0], dst_bytes[0]);
    }
    copy(dst, src, src_bytes[0]);
    return DK_OK;
}

static dk_status broadcast(dk_transport *t, void *data, size_t bytes, int root,
                           const dk_comm_at *at, dk_error *err)
{
    (void)t, (void)data, (void)bytes, (void)root, (void)at, (void)err;
    return DK_OK;
}

static dk_status send_receive(dk_transport *t, const void *src, size_t src_bytes, int to,
                              void *dst, size_t dst_bytes, int from, const dk_comm_at *at,
                              dk_error *err)
{
    (void)t;
    if (to != 0 || from != 0 || dst_bytes != src_bytes) {
        return dk_fail(err, DK_INVALID, "%s: one rank alone has nobody to talk to", at->what);
    }
    copy(dst, src, src_bytes);
    return DK_OK;
}

static dk_status barrier(dk_transport *t, const dk_comm_at *at, dk_error *err)
{
    (void)t, (void)at, (void)err;
    return DK_OK;
}

static dk_status split(dk_transport **out, dk_transport *t, int color, int key,
                       const dk_comm_at *at, dk_error *err)
{
    (void)t, (void)key, (void)at;
    *out = NULL;
    return color < 0 ? DK_OK : dk_transport_self(out, err);
}

static void abandon(dk_transport *t, const char *why)
{
    (void)t, (void)why;
}

static void close_self(dk_transport *t)
{
    dk_free(t);
}

dk_status dk_transport_self(dk_transport **out, dk_error *err)
{
    static const dk_transport_ops ops = {.name = "self",
                                         .all_reduce = all_reduce,
                                         .reduce_scatter = reduce_scatter,
                                         .all_gather = all_gather,
                                         .all_to_all = all_to_all,
                                         .broadcast = broadcast,
                                         .send_receive = send_receive,
                                         .barrier = barrier,
                                         .split = split,
                                         .abandon = abandon,
                                         .close = close_self};
    (void)err;
    dk_transport *t = dk_alloc(sizeof *t);
    *t = (dk_transport){.ops = &ops, .rank = 0, .ranks = 1};
    *out = t;
    return DK_OK;
}
