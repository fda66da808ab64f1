/* Layers that ranks share out: every rank sees the files' bytes, in every pass; what it keeps
   and what it has at work is as small as it says. */
#define _DEFAULT_SOURCE /* mincore */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "comm/comm_fixture.h"
#include "comm/communicator.h"
#include "weights/shards.h"

enum { LAYERS = 5, MOST_PIECES = 3, STRIDE = 4000 };

typedef struct piece {
    dk_mapping file; /* owned: the weight as stored, rows of STRIDE bytes */
    void *address;
    unsigned char *wanted; /* owned: what has to be there */
    size_t bytes;
} piece;

typedef struct model {
    dk_comm *comm;
    dk_shards *shards;
    piece pieces[LAYERS][MOST_PIECES];
    int counts[LAYERS];
} model;

static unsigned char *known_bytes(size_t bytes, uint32_t state)
{
    unsigned char *made = dk_alloc(bytes + 1);
    for (size_t i = 0; i < bytes; i++) {
        made[i] = (unsigned char)known_number(&state);
    }
    return made;
}

/* A mapped file, which is gone from its folder. */
static dk_status write_file(dk_mapping *out, size_t bytes, uint32_t state, dk_error *err)
{
    char path[] = "/tmp/dk-test-shards-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0) {
        return dk_fail(err, DK_IO, "no file in /tmp");
    }
    unsigned char *content = known_bytes(bytes, state);
    dk_status status = dk_file_write_all(fd, (const char *)content, bytes, path, err);
    dk_free(content);
    close(fd);
    if (status == DK_OK) {
        status = dk_mapping_open(out, path, err);
    }
    unlink(path);
    return status;
}

/* The numbers of a file of BF16, at an odd address, in the type that the store makes of them.
 */
static unsigned char *wanted_bytes(const dk_shard_source *source, dk_dtype type)
{
    size_t width = dk_dtype_bytes(type);
    unsigned char *made = dk_alloc(source->rows * source->cols * width + 1);
    for (size_t i = 0; i < source->rows * source->cols; i++) {
        uint16_t number;
        memcpy(&number,
               (const char *)source->data + i / source->cols * source->stride +
                   i % source->cols * sizeof number,
               sizeof number);
        uint32_t wide = (uint32_t)number << 16;
        memcpy(made + i * width, type == DK_F32 ? (const void *)&wide : (const void *)&number,
               width);
    }
    return made;
}

/* Uneven sizes: of one number, of columns of a wider matrix, of more than two pages. */
static dk_status add_all(model *m, size_t scale, dk_dtype type, dk_error *err)
{
    const dk_shard_source shapes[MOST_PIECES] = {
        {.rows = 1, .cols = 1},
        {.rows = 7, .cols = 33},
        {.rows = 3 * scale, .cols = 1501},
    };
    for (int i = 0; i < LAYERS; i++) {
        m->counts[i] = 1 + i % MOST_PIECES;
        for (int k = 0; k < m->counts[i]; k++) {
            piece *p = &m->pieces[i][k];
            dk_shard_source source = shapes[(i + k) % MOST_PIECES];
            source.type = DK_BF16;
            source.stride = STRIDE;
            DK_TRY(write_file(&p->file, source.rows * STRIDE,
                              (uint32_t)(1000 * i + 10 * k) + 7u, err));
            source.data = p->file.data + 5;
            p->bytes = source.rows * source.cols * dk_dtype_bytes(type);
            p->wanted = wanted_bytes(&source, type);
            DK_TRY(dk_shards_add(m->shards, &p->address, i, scale * 40000 + 2000, &source, type,
                                 err));
        }
    }
    return DK_OK;
}

static dk_status check_piece(const piece *p, int layer, dk_error *err)
{
    for (size_t i = 0; i < p->bytes; i++) {
        if (((const unsigned char *)p->address)[i] != p->wanted[i]) {
            return dk_fail(err, DK_MISMATCH, "layer %d: byte %zu of %zu is %d, not %d", layer,
                           i, p->bytes, ((const unsigned char *)p->address)[i], p->wanted[i]);
        }
    }
    return DK_OK;
}

/* Pages of the layers' weights that this process has. */
static size_t resident_pages(const model *m)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), found = 0;
    for (int i = 0; i < LAYERS; i++) {
        for (int k = 0; k < m->counts[i]; k++) {
            const piece *p = &m->pieces[i][k];
            uintptr_t first = (uintptr_t)p->address / page * page;
            size_t count = ((uintptr_t)p->address + p->bytes - first + page - 1) / page;
            unsigned char *seen = dk_alloc(count);
            if (mincore((void *)first, count * page, seen) == 0) {
                for (size_t n = 0; n < count; n++) {
                    found += seen[n] & 1;
                }
            }
            dk_free(seen);
        }
    }
    return found;
}

static dk_status use(model *m, int layer, dk_error *err)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const dk_shards_size size = dk_shards_get_size(m->shards);
    DK_TRY(dk_shards_begin(m->shards, layer, err));
    dk_status status = DK_OK;
    for (int k = 0; k < m->counts[layer] && status == DK_OK; k++) {
        status = check_piece(&m->pieces[layer][k], layer, err);
    }
    size_t pages = resident_pages(m), most = (size.most - size.kept) / page + 4 * MOST_PIECES;
    if (status == DK_OK && pages > most) {
        status = dk_fail(err, DK_MISMATCH, "layer %d: %zu pages are there, expected up to %zu",
                         layer, pages, most);
    }
    dk_shards_end(m->shards, layer);
    return status;
}

static dk_status use_all(model *m, dk_error *err)
{
    for (int pass = 0; pass < 3; pass++) {
        for (int i = 0; i < LAYERS; i++) {
            DK_TRY(use(m, i, err));
        }
    }
    DK_TRY(use(m, 0, err)); /* a pass that ends early, then others */
    DK_TRY(use(m, 1, err));
    DK_TRY(use(m, 0, err));
    DK_TRY(use(m, 3, err));
    return use(m, 3, err);
}

/* Some weights of layers 1 and 2 get another form, as quantising does. */
static dk_status replace_some(model *m, dk_error *err)
{
    for (int i = 1; i <= 2; i++) {
        for (int k = 0; k < m->counts[i]; k += 2) {
            piece *p = &m->pieces[i][k];
            DK_TRY(dk_shards_read(m->shards, p->address, err));
            DK_TRY(check_piece(p, i, err));
            p->bytes = p->bytes / 2 + 3;
            dk_free(p->wanted);
            p->wanted = known_bytes(p->bytes, 99);
            DK_TRY(dk_shards_replace(m->shards, &p->address, p->address, p->wanted, p->bytes,
                                     err));
        }
    }
    return DK_OK;
}

static dk_status open_comm(model *m, const dk_transport_options *t, dk_error *err)
{
    const dk_comm_options options = {.backend = "shm",
                                     .rank = t->rank,
                                     .ranks = t->ranks,
                                     .address = t->address,
                                     .key = t->key,
                                     .start_s = 20,
                                     .deadline_s = 20};
    *m = (model){0};
    DK_TRY(dk_comm_open(&m->comm, &options, err));
    m->shards = dk_shards_create(m->comm);
    return DK_OK;
}

static void close_model(model *m)
{
    dk_shards_settle(m->shards);
    dk_shards_destroy(&m->shards);
    dk_comm_close(&m->comm);
    for (int i = 0; i < LAYERS; i++) {
        for (int k = 0; k < m->counts[i]; k++) {
            dk_mapping_close(&m->pieces[i][k].file);
            dk_free(m->pieces[i][k].wanted);
        }
    }
}

/* argument: how large weights are; behind it 'r': some are replaced, 'f': they become F32. */
static dk_status run_layers(const dk_transport_options *t, const char *argument, dk_error *err)
{
    model m;
    DK_TRY(open_comm(&m, t, err));
    dk_dtype type = strchr(argument, 'f') != NULL ? DK_F32 : DK_BF16;
    dk_status status = add_all(&m, (size_t)atoi(argument), type, err);
    if (status == DK_OK && strchr(argument, 'r') != NULL) {
        status = replace_some(&m, err);
    }
    if (status == DK_OK) {
        status = dk_shards_seal(m.shards, err);
    }
    const dk_shards_size size = dk_shards_get_size(m.shards);
    size_t runs = 2 * LAYERS; /* parts are whole lines of each run */
    if (status == DK_OK && size.kept > size.whole / (size_t)t->ranks + runs * DK_ALIGNMENT) {
        status = dk_fail(err, DK_MISMATCH, "%zu bytes of %zu are kept", size.kept, size.whole);
    }
    if (status == DK_OK) {
        status = use_all(&m, err);
    }
    close_model(&m);
    return status;
}

static const rank_case cases[] = {{"layers", run_layers}};

static void test_layers(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 3; ranks++) {
        run_ranks("layers", ranks, "1");
        run_ranks("layers", ranks, "40");
        run_ranks("layers", ranks, "10f");
    }
}

static void test_replaced(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 3; ranks++) {
        run_ranks("layers", ranks, "8r");
    }
}

int main(int argc, char **argv)
{
    int code;
    if (ran_as_rank(argc, argv, cases, sizeof cases / sizeof *cases, &code)) {
        return code;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
