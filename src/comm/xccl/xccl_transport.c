/* The transport over oneCCL: its life, and groups. Sums are made in oneCCL's order: their last
   bits may be others than those of shm and mpi.

   With a lane the calls are enqueued on its SYCL queue and waited for, and on a GPU may be
   messages between two ranks, which crash elsewhere. */
#include "comm/xccl/xccl_transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/process.h"
#include "comm/xccl/setup.h"

static const double END_MS = 1e3, SERVE_MS = 500;
enum { HOST_BYTES = 65 };

static dk_xccl_transport *own(dk_transport *t)
{
    return (dk_xccl_transport *)t;
}

static void lost(void *context, int rank, const char *why)
{
    dk_xccl_family *f = context;
    dk_xccl_carrier_lose(f->carrier, rank, why);
}

static void abandon(dk_transport *base, const char *why)
{
    dk_xccl_family *f = own(base)->family;
    char text[240];
    snprintf(text, sizeof text, "gave up: %s", why);
    dk_rendezvous_abandon(f->meeting, why);
    dk_xccl_carrier_lose(f->carrier, own(base)->world[base->rank], text);
}

/* A rank that leaves after a failure says so: others wait in calls, some without a deadline. */
static void close_family(dk_xccl_family *f, bool failed)
{
    if (failed) {
        dk_rendezvous_abandon(f->meeting, "closed after a failure");
    }
    dk_rendezvous_close(&f->meeting); /* nobody calls lost() from here on */
    if (f->carrier != NULL) {
        dk_xccl_carrier_destroy(f->carrier);
    }
    if (!failed) {
        dk_xccl_board_close(f->board);
    }
    dk_free(f);
}

static bool destroy(dk_xccl_transport *t, double deadline_ms)
{
    const dk_xccl_call call = {.kind = DK_XCCL_DESTROY, .comm = t->comm};
    const dk_comm_at at = {.what = "closing", .deadline_ms = deadline_ms};
    return dk_xccl_make(t, NULL, &call, &at, NULL) == DK_OK;
}

/* Rank 0 serves the others' ends too, and stays until they have come to theirs. */
static void wait_for_ends(const dk_xccl_transport *t, double deadline_ms)
{
    const dk_xccl_family *f = t->family;
    uint64_t mine = atomic_load(&f->board->begun[0][t->base.rank]);
    bool ended = false;
    while (!ended && dk_now_ms() < deadline_ms) {
        ended = f->one_host;
        for (int i = 0; i < t->base.ranks; i++) {
            ended = ended && atomic_load(&f->board->begun[0][i]) >= mine;
        }
        usleep(1000);
    }
}

/* The outermost group ends together, since oneCCL ends the whole process of a rank that comes
   to its end when rank 0 is gone already. Whoever does not come within END_MS is not waited
   for: oneCCL's end of the group then stays as it is. */
static bool end_together(dk_xccl_transport *t)
{
    double deadline_ms = dk_now_ms() + END_MS;
    const dk_comm_at at = {.what = "closing", .deadline_ms = deadline_ms};
    if (dk_xccl_barrier(&t->base, &at, NULL) != DK_OK || !destroy(t, deadline_ms + END_MS)) {
        return false;
    }
    atomic_fetch_add(&t->family->board->begun[0][t->base.rank], 1);
    if (t->base.rank == 0) {
        wait_for_ends(t, dk_now_ms() + SERVE_MS);
    }
    return true;
}

/* All memory, but what a call that was left behind may still use. */
static void close_transport(dk_transport *base)
{
    dk_xccl_transport *t = own(base);
    dk_xccl_family *f = t->family;
    bool ends = t->comm != NULL && !dk_xccl_carrier_failed(f->carrier) &&
                !dk_xccl_carrier_lost(f->carrier);
    if (ends && t->outermost) {
        end_together(t);
    } else if (ends) {
        destroy(t, dk_now_ms() + END_MS);
    }
    bool failed = f->carrier != NULL && dk_xccl_carrier_failed(f->carrier);
    if (t->outermost) {
        close_family(f, failed);
    }
    if (!failed) {
        dk_lane_release(base->lane, &t->scratch);
        dk_lane_release(base->lane, &t->staging.src);
        dk_lane_release(base->lane, &t->staging.dst);
        if (t->outermost) {
            dk_device_lane_close(&base->lane);
        }
        dk_free(t);
    }
}

/* Ranks in the order of key, then of rank; returns how many have the color. words: color, key
   and next group of every rank. */
static int list_members(int *members, const int64_t *words, int ranks, int color)
{
    int count = 0;
    for (int rank = 0; rank < ranks; rank++) {
        if (words[3 * rank] != color) {
            continue;
        }
        int at = count++;
        for (; at > 0 && words[3 * members[at - 1] + 1] > words[3 * rank + 1]; at--) {
            members[at] = members[at - 1];
        }
        members[at] = rank;
    }
    return count;
}

static dk_status share_wishes(dk_xccl_transport *t, int color, int key, const dk_comm_at *at,
                              dk_error *err)
{
    size_t sizes[DK_COMM_MOST_RANKS];
    int64_t *mine = t->words + 3 * DK_COMM_MOST_RANKS;
    for (int i = 0; i < t->base.ranks; i++) {
        sizes[i] = 3 * sizeof *mine;
    }
    mine[0] = color;
    mine[1] = key;
    mine[2] = t->family->next_group;
    return dk_xccl_all_gather(&t->base, t->words, mine, sizes, at, err);
}

/* Whether every new group has its ranks in the order of the old one. */
static bool keeps_order(const int64_t *words, int ranks)
{
    for (int i = 0; i < ranks; i++) {
        for (int j = 0; j < i; j++) {
            if (words[3 * i] >= 0 && words[3 * i] == words[3 * j] &&
                words[3 * j + 1] > words[3 * i + 1]) {
                return false;
            }
        }
    }
    return true;
}

/* A group from the beginning: its first rank makes the id, which goes to all through the old
   one. made: without a color takes part in that alone. */
static dk_status begin_group(dk_xccl_transport *t, dk_xccl_transport *made, int first,
                             const dk_comm_at *at, dk_error *err)
{
    onecclUniqueId *mine = dk_xccl_carrier_id(t->family->carrier), *all;
    size_t sizes[DK_COMM_MOST_RANKS], ranks = (size_t)t->base.ranks;
    for (size_t i = 0; i < ranks; i++) {
        sizes[i] = sizeof *mine;
    }
    bool makes = made != NULL && made->base.rank == 0;
    if (makes && onecclGetUniqueId(mine) != onecclSuccess) {
        return dk_fail(err, DK_NETWORK, "%s: oneCCL gives no id", at->what);
    }
    DK_TRY(dk_try_alloc((void **)&all, ranks * sizeof *all, "ids of oneCCL", err));
    DK_TRY(dk_xccl_all_gather(&t->base, all, mine, sizes, at, err)); /* a failure keeps `all` */
    dk_status status = DK_OK;
    if (made != NULL) {
        *mine = all[first];
        const dk_xccl_call call = {.kind = DK_XCCL_INIT,
                                   .rank = made->base.rank,
                                   .ranks = made->base.ranks,
                                   .device = -1,
                                   .id = mine};
        status = dk_xccl_make(made, &made->comm, &call, at, err);
    }
    dk_free(all);
    return status;
}

static dk_status check_order(dk_xccl_transport *made, const dk_comm_at *at, dk_error *err)
{
    size_t sizes[DK_COMM_MOST_RANKS];
    int64_t *mine = made->words + DK_COMM_MOST_RANKS;
    for (int i = 0; i < made->base.ranks; i++) {
        sizes[i] = sizeof *mine;
    }
    *mine = made->world[made->base.rank];
    DK_TRY(dk_xccl_all_gather(&made->base, made->words, mine, sizes, at, err));
    for (int i = 0; i < made->base.ranks; i++) {
        if (made->words[i] != made->world[i]) {
            return dk_fail(err, DK_NETWORK, "%s: oneCCL has put rank %d in the place of %d",
                           at->what, (int)made->words[i], made->world[i]);
        }
    }
    return DK_OK;
}

/* The new group of this rank, without oneCCL's end of it. */
static dk_xccl_transport *make_group(const dk_xccl_transport *t, const int *members, int count,
                                     int group)
{
    dk_xccl_transport *made = dk_alloc(sizeof *made);
    made->base = (dk_transport){.ops = t->base.ops, .ranks = count, .lane = t->base.lane};
    made->family = t->family;
    made->group = group;
    for (int i = 0; i < count; i++) {
        made->world[i] = t->world[members[i]];
        made->base.rank = members[i] == t->base.rank ? i : made->base.rank;
    }
    return made;
}

/* oneCCL's split looks at no keys: it serves where they change nothing. */
static dk_status split(dk_transport **out, dk_transport *base, int color, int key,
                       const dk_comm_at *at, dk_error *err)
{
    dk_xccl_transport *t = own(base), *made = NULL;
    int members[DK_COMM_MOST_RANKS] = {0}, group = 0;
    DK_TRY(share_wishes(t, color, key, at, err));
    for (int i = 0; i < base->ranks; i++) {
        int next = (int)t->words[3 * i + 2];
        group = next > group ? next : group;
    }
    t->family->next_group = group + 1;
    if (color >= 0) {
        int count = list_members(members, t->words, base->ranks, color);
        made = make_group(t, members, count, group);
    }
    dk_status status;
    if (keeps_order(t->words, base->ranks)) {
        const dk_xccl_call call = {.kind = DK_XCCL_SPLIT,
                                   .comm = t->comm,
                                   .color = color >= 0 ? color : ONECCL_SPLIT_NOCOLOR,
                                   .key = made != NULL ? made->base.rank : 0};
        status = dk_xccl_make(t, made != NULL ? &made->comm : NULL, &call, at, err);
    } else {
        status = begin_group(t, made, members[0], at, err);
    }
    if (status == DK_OK && made != NULL) {
        status = check_order(made, at, err);
    }
    if (status != DK_OK) { /* a call that was left behind may use `made` */
        return status;
    }
    *out = made != NULL ? &made->base : NULL;
    return DK_OK;
}

static const dk_transport_ops common_ops = {.name = "xccl",
                                            .all_reduce = dk_xccl_all_reduce,
                                            .reduce_scatter = dk_xccl_reduce_scatter,
                                            .all_gather = dk_xccl_all_gather,
                                            .all_to_all = dk_xccl_all_to_all,
                                            .broadcast = dk_xccl_broadcast,
                                            .barrier = dk_xccl_barrier,
                                            .split = split,
                                            .abandon = abandon,
                                            .close = close_transport};
static const dk_transport_ops gpu_ops = {.name = "xccl",
                                         .all_reduce = dk_xccl_all_reduce,
                                         .reduce_scatter = dk_xccl_reduce_scatter,
                                         .all_gather = dk_xccl_all_gather,
                                         .all_to_all = dk_xccl_all_to_all,
                                         .broadcast = dk_xccl_broadcast,
                                         .send_receive = dk_xccl_send_receive,
                                         .barrier = dk_xccl_barrier,
                                         .split = split,
                                         .abandon = abandon,
                                         .close = close_transport};

/* Who is on which host; oneCCL is set up by that. */
static dk_status meet_hosts(dk_xccl_family *f, const dk_transport_options *o, dk_error *err)
{
    char interface[HOST_BYTES], mine[HOST_BYTES] = "", all[DK_COMM_MOST_RANKS][HOST_BYTES];
    int here = 0;
    gethostname(mine, sizeof mine - 1);
    DK_TRY(dk_rendezvous_exchange(f->meeting, all, mine, sizeof mine, o->deadline_ms, err));
    for (int i = 0; i < o->ranks; i++) {
        f->here[i] = memcmp(all[i], mine, sizeof mine) == 0;
        here += f->here[i];
    }
    f->one_host = here == o->ranks;
    dk_xccl_set_up(o->lane, o->cores_are_short || here > sysconf(_SC_NPROCESSORS_ONLN),
                   f->one_host, o->log);
    if (!f->one_host && dk_rendezvous_interface(f->meeting, interface, sizeof interface)) {
        dk_xccl_set_interface(interface, o->log);
    }
    return DK_OK;
}

/* A name from the id, which no other group has. */
static void name_board(char *out, size_t size, const onecclUniqueId *id)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < sizeof id->data; i++) {
        hash = (hash ^ (unsigned char)id->data[i]) * 1099511628211u;
    }
    snprintf(out, size, "/darkroom-xccl-%016llx", (unsigned long long)hash);
}

/* The id is rank 0's; then everybody opens the board. */
static dk_status meet_id(dk_xccl_family *f, const dk_transport_options *o, dk_error *err)
{
    onecclUniqueId *id = dk_xccl_carrier_id(f->carrier), *all = NULL;
    char name[64], opened[DK_COMM_MOST_RANKS];
    int result = o->rank == 0 ? onecclGetUniqueId(id) : onecclSuccess;
    if (result != onecclSuccess) {
        return dk_fail(err, DK_NETWORK, "xccl: oneCCL gives no id: %s",
                       onecclGetErrorString(result));
    }
    DK_TRY(dk_try_alloc((void **)&all, (size_t)o->ranks * sizeof *all, "ids of oneCCL", err));
    dk_status status =
        dk_rendezvous_exchange(f->meeting, all, id, sizeof *id, o->deadline_ms, err);
    if (status == DK_OK) {
        *id = all[0];
    }
    dk_free(all);
    DK_TRY(status);
    name_board(name, sizeof name, id);
    DK_TRY(dk_xccl_board_open(&f->board, name, err));
    char mine = 1;
    status = dk_rendezvous_exchange(f->meeting, opened, &mine, 1, o->deadline_ms, err);
    dk_xccl_board_hide(name);
    return status;
}

/* What libfabric shares with other processes is named after the process, and would stay. */
static void remove_shared(int code, void *context)
{
    char name[32];
    (void)code;
    (void)context;
    snprintf(name, sizeof name, "/%d:0:0", (int)getpid());
    shm_unlink(name);
}

static dk_status begin(dk_xccl_transport *t, const dk_transport_options *o, dk_error *err)
{
    dk_xccl_family *f = t->family;
    const dk_rendezvous_options meeting = {.address = o->address,
                                           .key = o->key,
                                           .rank = o->rank,
                                           .ranks = o->ranks,
                                           .deadline_ms = o->deadline_ms};
    DK_TRY(dk_rendezvous_open(&f->meeting, &meeting, err));
    DK_TRY(meet_hosts(f, o, err));
    DK_TRY(dk_xccl_carrier_create(&f->carrier, o->lane, err));
    DK_TRY(meet_id(f, o, err));
    DK_TRY(dk_rendezvous_watch(f->meeting, lost, f, err));
    const dk_xccl_call call = {.kind = DK_XCCL_INIT,
                               .rank = o->rank,
                               .ranks = o->ranks,
                               .device = o->lane != NULL ? o->lane->number : -1,
                               .id = dk_xccl_carrier_id(f->carrier)};
    const dk_comm_at at = {.what = "starting xccl", .deadline_ms = o->deadline_ms};
    /* oneCCL's own end talks to rank 0, and ends the process by a signal when that is gone. */
    dk_process_skip_ends();
    on_exit(remove_shared, NULL);
    return dk_xccl_make(t, &t->comm, &call, &at, err);
}

static dk_status open_transport(dk_transport **out, const dk_transport_options *o,
                                dk_error *err)
{
    dk_device_lane *lane = o->lane;
    if (o->ranks < 1 || o->ranks > DK_COMM_MOST_RANKS || o->rank < 0 || o->rank >= o->ranks) {
        dk_device_lane_close(&lane);
        return dk_fail(err, DK_INVALID, "xccl: rank %d of %d, accepted are up to %d ranks",
                       o->rank, o->ranks, DK_COMM_MOST_RANKS);
    }
    dk_xccl_transport *t = dk_alloc(sizeof *t);
    t->family = dk_alloc(sizeof *t->family);
    t->family->next_group = 1;
    t->base = (dk_transport){.ops = lane != NULL && lane->number >= 0 ? &gpu_ops : &common_ops,
                             .rank = o->rank,
                             .ranks = o->ranks,
                             .lane = lane};
    t->outermost = true;
    for (int i = 0; i < o->ranks; i++) {
        t->world[i] = i;
    }
    int kept = dk_xccl_divert_begin();
    dk_status status = begin(t, o, err);
    dk_xccl_divert_end(kept);
    if (status != DK_OK) {
        close_transport(&t->base);
        return status;
    }
    *out = &t->base;
    return DK_OK;
}

__attribute__((visibility("default"))) const dk_transport_module *dk_transport_module_get(void);

const dk_transport_module *dk_transport_module_get(void)
{
    static const dk_transport_module module = {.version = DK_TRANSPORT_MODULE_VERSION,
                                               .transport_bytes = sizeof(dk_transport),
                                               .libraries = "oneCCL (C API 2022.1)",
                                               .open = open_transport};
    return &module;
}
