/* Layers that are shared out. What is gathered of a layer are runs of its region: one, unless
   weights inside were replaced by what lies behind them. */
#include "weights/shards.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/region.h"
#include "comm/groups.h"
#include "tensor/convert.h"

/* A weight of a layer. */
typedef struct piece {
    size_t offset, bytes;
    dk_shard_source source; /* data NULL: the bytes lie in the region */
    dk_dtype type;          /* of its numbers here */
    bool gone;              /* replaced */
} piece;

typedef struct run {
    size_t offset, bytes;
    size_t kept; /* where this rank's part lies in `kept` */
} run;

typedef enum state { ABSENT, COMING, WHOLE } state;

typedef struct layer {
    char *region; /* owned, `room` bytes */
    size_t room, used;
    piece *pieces; /* owned */
    int piece_count;
    run *runs; /* owned; known when the layer is cut */
    int run_count;
    char *kept; /* owned: this rank's parts, run by run; NULL: not cut yet */
    size_t kept_bytes, whole_bytes;
    state state;
    dk_comm_ticket ticket; /* of the last run's gather */
} layer;

struct dk_shards {
    dk_comm *comm;
    layer *layers; /* owned */
    int count;
    int open; /* the layer whose weights are read or replaced; -1: none */
};

static size_t lines(size_t bytes)
{
    return (bytes + DK_ALIGNMENT - 1) / DK_ALIGNMENT;
}

dk_shards *dk_shards_create(dk_comm *comm)
{
    dk_shards *s = dk_alloc(sizeof *s);
    *s = (dk_shards){.comm = comm, .open = -1};
    return s;
}

void dk_shards_destroy(dk_shards **shards)
{
    dk_shards *s = *shards;
    for (int i = 0; s != NULL && i < s->count; i++) {
        dk_region_close(s->layers[i].region, s->layers[i].room);
        dk_free(s->layers[i].pieces);
        dk_free(s->layers[i].runs);
        dk_free(s->layers[i].kept);
    }
    if (s != NULL) {
        dk_free(s->layers);
    }
    dk_free(s);
    *shards = NULL;
}

static piece *append(layer *l, size_t offset, size_t bytes)
{
    size_t count = (size_t)l->piece_count + 1;
    l->pieces = dk_realloc(l->pieces, count * sizeof *l->pieces);
    piece *p = &l->pieces[l->piece_count++];
    *p = (piece){.offset = offset, .bytes = bytes};
    l->used = offset + lines(bytes) * DK_ALIGNMENT;
    return p;
}

/* Room for the weights as they are stored, and for as much that takes their place. */
static dk_status open_layer(dk_shards *s, int number, size_t room, dk_error *err)
{
    while (s->count <= number) {
        s->layers = dk_realloc(s->layers, ((size_t)s->count + 1) * sizeof *s->layers);
        s->layers[s->count++] = (layer){0};
    }
    layer *l = &s->layers[number];
    void *memory;
    if (l->region != NULL) {
        return DK_OK;
    }
    DK_TRY(dk_region_open(&memory, 2 * room, "a layer's weights", err));
    l->region = memory;
    l->room = 2 * room;
    return DK_OK;
}

static dk_status check_room(const layer *l, int number, size_t bytes, dk_error *err)
{
    if (l->used + lines(bytes) * DK_ALIGNMENT > l->room) {
        return dk_fail(err, DK_INTERNAL, "layer %d: %zu bytes and %zu more, in a region of %zu",
                       number, l->used, bytes, l->room);
    }
    return DK_OK;
}

dk_status dk_shards_add(dk_shards *s, void **address, int number, size_t room,
                        const dk_shard_source *source, dk_dtype type, dk_error *err)
{
    size_t bytes = source->rows * source->cols * dk_dtype_bytes(type);
    DK_TRY(open_layer(s, number, room, err));
    layer *l = &s->layers[number];
    DK_TRY(check_room(l, number, bytes, err));
    assert(l->kept == NULL);
    piece *p = append(l, l->used, bytes);
    p->source = *source;
    p->type = type;
    *address = l->region + p->offset;
    return DK_OK;
}

/* --- reading and cutting ------------------------------------------------------------------ */

/* `count` numbers of a source's row. */
static void copy_numbers(char *dst, dk_dtype type, const dk_shard_source *source,
                         const char *src, size_t count)
{
    enum { CHUNK = 1024 };
    float values[CHUNK];
    size_t from = dk_dtype_bytes(source->type), to = dk_dtype_bytes(type);
    if (type == source->type) {
        memcpy(dst, src, count * to);
        return;
    }
    for (size_t i = 0; i < count; i += CHUNK) {
        int64_t some = (int64_t)(count - i < CHUNK ? count - i : CHUNK);
        dk_convert_to_f32(values, src + i * from, source->type, some);
        dk_convert_from_f32(dst + i * to, type, values, some);
    }
}

/* Bytes [from, from + bytes) of a weight, which begin and end with a number. */
static void copy_part(char *dst, const layer *l, const piece *p, size_t from, size_t bytes)
{
    const dk_shard_source *source = &p->source;
    if (source->data == NULL) {
        memcpy(dst, l->region + p->offset + from, bytes);
        return;
    }
    size_t width = dk_dtype_bytes(p->type), first = from / width, count = bytes / width;
    while (count > 0) {
        size_t row = first / source->cols, col = first % source->cols;
        size_t some = source->cols - col < count ? source->cols - col : count;
        const char *src = (const char *)source->data + row * source->stride +
                          col * dk_dtype_bytes(source->type);
        copy_numbers(dst, p->type, source, src, some);
        dst += some * width;
        first += some;
        count -= some;
    }
}

static size_t stored_bytes(const piece *p)
{
    return p->source.rows * p->source.cols * dk_dtype_bytes(p->source.type);
}

static void forget_file(const piece *p)
{
    if (p->source.data != NULL && p->source.rows > 0) {
        size_t last = p->source.cols * dk_dtype_bytes(p->source.type);
        dk_pages_give_back(p->source.data, (p->source.rows - 1) * p->source.stride + last);
    }
}

/* Runs of neighbours that are still there. */
static void find_runs(layer *l)
{
    run *last = NULL;
    for (int i = 0; i < l->piece_count; i++) {
        const piece *p = &l->pieces[i];
        size_t bytes = lines(p->bytes) * DK_ALIGNMENT;
        if (p->gone || bytes == 0) {
            continue;
        }
        if (last == NULL || last->offset + last->bytes != p->offset) {
            l->runs = dk_realloc(l->runs, ((size_t)l->run_count + 1) * sizeof *l->runs);
            last = &l->runs[l->run_count++];
            *last = (run){.offset = p->offset};
        }
        last->bytes += bytes;
        l->whole_bytes += bytes;
    }
}

static size_t part_begin(const run *r, int ranks, int rank)
{
    return (size_t)dk_part_begin((int64_t)lines(r->bytes), ranks, rank) * DK_ALIGNMENT;
}

/* This rank's part of a run, from wherever its weights are. */
static void cut_run(const dk_shards *s, layer *l, const run *r)
{
    int ranks = dk_comm_ranks(s->comm), rank = dk_comm_rank(s->comm);
    size_t begin = r->offset + part_begin(r, ranks, rank);
    size_t end = r->offset + part_begin(r, ranks, rank + 1);
    memset(l->kept + r->kept, 0, end - begin); /* what is between weights */
    for (int i = 0; i < l->piece_count; i++) {
        const piece *p = &l->pieces[i];
        size_t first = p->offset > begin ? p->offset : begin;
        size_t last = p->offset + p->bytes < end ? p->offset + p->bytes : end;
        if (!p->gone && first < last) {
            copy_part(l->kept + r->kept + (first - begin), l, p, first - p->offset,
                      last - first);
        }
    }
}

static dk_status cut(dk_shards *s, layer *l, dk_error *err)
{
    int ranks = dk_comm_ranks(s->comm), rank = dk_comm_rank(s->comm);
    void *memory;
    if (l->kept != NULL) {
        return DK_OK;
    }
    l->run_count = 0;
    l->whole_bytes = 0;
    find_runs(l);
    l->kept_bytes = 0;
    for (int i = 0; i < l->run_count; i++) {
        l->runs[i].kept = l->kept_bytes;
        l->kept_bytes +=
            part_begin(&l->runs[i], ranks, rank + 1) - part_begin(&l->runs[i], ranks, rank);
    }
    DK_TRY(dk_try_alloc(&memory, l->kept_bytes + 1, "this rank's part of a layer", err));
    l->kept = memory;
    for (int i = 0; i < l->run_count; i++) {
        cut_run(s, l, &l->runs[i]);
    }
    for (int i = 0; i < l->piece_count; i++) {
        forget_file(&l->pieces[i]);
    }
    dk_pages_give_back(l->region, l->room);
    return DK_OK;
}

/* --- before the store is sealed ----------------------------------------------------------- */

static piece *find(dk_shards *s, const void *address, int *number)
{
    for (int i = 0; i < s->count; i++) {
        layer *l = &s->layers[i];
        for (int k = 0; k < l->piece_count; k++) {
            if (l->region + l->pieces[k].offset == address && !l->pieces[k].gone) {
                *number = i;
                return &l->pieces[k];
            }
        }
    }
    return NULL;
}

dk_status dk_shards_read(dk_shards *s, void *address, dk_error *err)
{
    int number = 0;
    const piece *p = find(s, address, &number);
    assert(p != NULL && s->layers[number].kept == NULL);
    if (s->open >= 0 && s->open != number) {
        DK_TRY(cut(s, &s->layers[s->open], err));
    }
    s->open = number;
    copy_part(address, &s->layers[number], p, 0, p->bytes);
    forget_file(p);
    return DK_OK;
}

dk_status dk_shards_replace(dk_shards *s, void **moved, void *address, const void *data,
                            size_t bytes, dk_error *err)
{
    int number = 0;
    piece *p = find(s, address, &number);
    assert(p != NULL);
    layer *l = &s->layers[number];
    DK_TRY(check_room(l, number, bytes, err));
    p->gone = true;
    *moved = l->region + append(l, l->used, bytes)->offset;
    memcpy(*moved, data, bytes);
    return DK_OK;
}

dk_status dk_shards_seal(dk_shards *s, dk_error *err)
{
    for (int i = 0; i < s->count; i++) {
        DK_TRY(cut(s, &s->layers[i], err));
    }
    return DK_OK;
}

/* --- in use ------------------------------------------------------------------------------- */

static void start(dk_shards *s, layer *l)
{
    int ranks = dk_comm_ranks(s->comm);
    size_t bytes[DK_COMM_MOST_RANKS];
    for (int i = 0; i < l->run_count; i++) {
        const run *r = &l->runs[i];
        for (int k = 0; k < ranks; k++) {
            bytes[k] = part_begin(r, ranks, k + 1) - part_begin(r, ranks, k);
        }
        l->ticket = dk_comm_start_all_gather(s->comm, l->region + r->offset, l->kept + r->kept,
                                             1, bytes);
    }
    l->state = COMING;
}

static dk_status arrive(dk_shards *s, layer *l, dk_error *err)
{
    if (l->state == COMING) {
        l->state = WHOLE; /* or of no more use, which the failure says */
        return dk_comm_wait(s->comm, l->ticket, err);
    }
    return DK_OK;
}

static void give_back(layer *l)
{
    dk_pages_give_back(l->region, l->used);
    l->state = ABSENT;
}

/* What a pass that ended early has left. */
static dk_status clear(dk_shards *s, int number, int next, dk_error *err)
{
    for (int i = 0; i < s->count; i++) {
        layer *l = &s->layers[i];
        if (i != number && i != next && l->state != ABSENT) {
            DK_TRY(arrive(s, l, err));
            give_back(l);
        }
    }
    return DK_OK;
}

dk_status dk_shards_begin(dk_shards *s, int number, dk_error *err)
{
    int next = (number + 1) % s->count;
    layer *l = &s->layers[number];
    DK_TRY(clear(s, number, next, err));
    if (l->state == ABSENT) {
        start(s, l);
    }
    if (s->layers[next].state == ABSENT) {
        start(s, &s->layers[next]);
    }
    return arrive(s, l, err);
}

void dk_shards_end(dk_shards *s, int number)
{
    if (s->count > 1) {
        give_back(&s->layers[number]);
    }
}

void dk_shards_settle(dk_shards *s)
{
    for (int i = 0; s != NULL && i < s->count; i++) {
        dk_status status = arrive(s, &s->layers[i], NULL);
        (void)status; /* nobody reads the layer any more */
    }
}

const void *dk_shards_region(const dk_shards *s, int number, size_t *bytes)
{
    *bytes = s->layers[number].used;
    return s->layers[number].region;
}

dk_shards_size dk_shards_get_size(const dk_shards *s)
{
    dk_shards_size size = {.layers = s->count, .ranks = dk_comm_ranks(s->comm)};
    for (int i = 0; i < s->count; i++) {
        const layer *l = &s->layers[i], *next = &s->layers[(i + 1) % s->count];
        size_t two = l->whole_bytes + (next != l ? next->whole_bytes : 0);
        for (int k = 0; k < l->piece_count; k++) {
            size.stored += l->pieces[k].source.data != NULL ? stored_bytes(&l->pieces[k]) : 0;
        }
        size.whole += l->whole_bytes;
        size.kept += l->kept_bytes;
        size.most = two > size.most ? two : size.most;
    }
    size.most += size.kept;
    return size;
}
