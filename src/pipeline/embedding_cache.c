/* The cache of text embeddings: a list by age, newest first, and one file per prompt. */
#include "pipeline/embedding_cache.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/string.h"
#include "weights/safetensors.h"

typedef struct entry {
    struct entry *next;
    int32_t *ids;  /* [count], owned */
    float *values; /* [count][width], owned */
    int64_t count, width;
} entry;

struct dk_embedding_claim {
    dk_embedding_claim *next;
    int32_t *ids; /* [count], owned */
    int64_t count, width;
    bool ahead;
};

struct dk_embedding_cache {
    pthread_mutex_t lock;
    pthread_cond_t settled;
    dk_embedding_claim *claims;
    entry *newest;
    uint64_t most_bytes;
    char *folder; /* NULL: none */
    char *identity;
    dk_embedding_stats stats;
};

dk_embedding_cache *dk_embedding_cache_create(uint64_t most_bytes, const char *folder,
                                              const char *identity)
{
    dk_embedding_cache *cache = dk_alloc(sizeof *cache);
    pthread_mutex_init(&cache->lock, NULL);
    pthread_cond_init(&cache->settled, NULL);
    cache->most_bytes = most_bytes;
    cache->folder = folder != NULL ? dk_strdup(folder) : NULL;
    cache->identity = dk_strdup(identity);
    return cache;
}

static uint64_t ids_bytes(int64_t count)
{
    return (uint64_t)count * sizeof(int32_t);
}

static uint64_t values_bytes(int64_t count, int64_t width)
{
    return (uint64_t)(count * width) * sizeof(float);
}

static uint64_t bytes_of(const entry *e)
{
    return sizeof *e + ids_bytes(e->count) + values_bytes(e->count, e->width);
}

static void release(entry *e)
{
    dk_free(e->ids);
    dk_free(e->values);
    dk_free(e);
}

void dk_embedding_cache_destroy(dk_embedding_cache **cache)
{
    if (*cache != NULL) {
        for (entry *e = (*cache)->newest, *next; e != NULL; e = next) {
            next = e->next;
            release(e);
        }
        pthread_cond_destroy(&(*cache)->settled);
        pthread_mutex_destroy(&(*cache)->lock);
        dk_free((*cache)->folder);
        dk_free((*cache)->identity);
        dk_free(*cache);
        *cache = NULL;
    }
}

/* The entry, moved to the front; NULL: none. */
static entry *take_newest(dk_embedding_cache *cache, const int32_t *ids, int64_t count,
                          int64_t width)
{
    for (entry **at = &cache->newest; *at != NULL; at = &(*at)->next) {
        entry *e = *at;
        if (e->count == count && e->width == width &&
            memcmp(e->ids, ids, (size_t)ids_bytes(count)) == 0) {
            *at = e->next;
            e->next = cache->newest;
            cache->newest = e;
            return e;
        }
    }
    return NULL;
}

/* Oldest ones go until the bytes fit. */
static void shrink(dk_embedding_cache *cache)
{
    while (cache->stats.bytes > cache->most_bytes) {
        entry **last = &cache->newest;
        while ((*last)->next != NULL) {
            last = &(*last)->next;
        }
        cache->stats.bytes -= bytes_of(*last);
        cache->stats.entries--;
        release(*last);
        *last = NULL;
    }
}

static void *copy_of(const void *bytes, uint64_t size)
{
    void *copy = NULL;
    if (dk_try_alloc(&copy, (size_t)size, "text embeddings", NULL) != DK_OK) {
        return NULL;
    }
    memcpy(copy, bytes, (size_t)size);
    return copy;
}

static void add(dk_embedding_cache *cache, const int32_t *ids, int64_t count, int64_t width,
                const float *values)
{
    uint64_t bytes = sizeof(entry) + ids_bytes(count) + values_bytes(count, width);
    if (bytes > cache->most_bytes || take_newest(cache, ids, count, width) != NULL) {
        return;
    }
    entry *e = dk_alloc(sizeof *e);
    e->count = count;
    e->width = width;
    e->ids = copy_of(ids, ids_bytes(count));
    e->values = copy_of(values, values_bytes(count, width));
    if (e->ids == NULL || e->values == NULL) {
        release(e);
        return;
    }
    e->next = cache->newest;
    cache->newest = e;
    cache->stats.bytes += bytes;
    cache->stats.entries++;
    shrink(cache);
}

static bool sum_of(char hex[DK_SHA256_HEX_BYTES], const void *a, size_t a_size, const void *b,
                   size_t b_size)
{
    dk_digest digest;
    if (dk_sha256_init(&digest, NULL) != DK_OK) {
        return false;
    }
    dk_digest_update(&digest, a, a_size);
    dk_digest_update(&digest, b, b_size);
    dk_digest_final(&digest, hex);
    return true;
}

/* folder/<SHA-256 of identity and ids>.safetensors, owned; NULL: no folder. */
static char *path_of(const dk_embedding_cache *cache, const int32_t *ids, int64_t count)
{
    char hex[DK_SHA256_HEX_BYTES];
    dk_string name = DK_STRING_EMPTY;
    if (cache->folder == NULL ||
        !sum_of(hex, cache->identity, strlen(cache->identity), ids, (size_t)ids_bytes(count))) {
        return NULL;
    }
    dk_string_printf(&name, "%s.safetensors", hex);
    char *path = dk_path_join(cache->folder, dk_string_text(&name));
    dk_string_release(&name);
    return path;
}

static bool says(const dk_safetensors *file, const char *key, const char *expected)
{
    const char *is = dk_safetensors_metadata(file, key);
    return is != NULL && strcmp(is, expected) == 0;
}

/* The tensor's data when type and shape are those; NULL otherwise. */
static const void *data_of(const dk_safetensors *file, const char *name, dk_dtype dtype,
                           int rank, const int64_t *shape)
{
    const dk_weight *weight = dk_safetensors_find(file, name);
    bool fits = weight != NULL && weight->tensor.dtype == dtype &&
                dk_tensor_has_shape(&weight->tensor, rank, shape);
    return fits ? weight->tensor.data : NULL;
}

/* What is damaged, or another prompt's, reads as not there. */
static float *read_file(const dk_embedding_cache *cache, const char *path, const int32_t *ids,
                        int64_t count, int64_t width)
{
    char hex[DK_SHA256_HEX_BYTES];
    float *values = NULL;
    dk_safetensors *file = NULL;
    const int64_t shape[] = {count, width};
    if (!dk_path_exists(path) || dk_safetensors_open(&file, path, NULL) != DK_OK) {
        return NULL;
    }
    const void *their_ids = data_of(file, "ids", DK_I32, 1, shape);
    const void *embeds = data_of(file, "embeds", DK_F32, 2, shape);
    size_t size = (size_t)values_bytes(count, width);
    if (their_ids != NULL && embeds != NULL && says(file, "identity", cache->identity) &&
        memcmp(their_ids, ids, (size_t)ids_bytes(count)) == 0 &&
        sum_of(hex, ids, (size_t)ids_bytes(count), embeds, size) && says(file, "sha256", hex)) {
        values = copy_of(embeds, size);
    }
    dk_safetensors_close(&file);
    return values;
}

static void write_file(const dk_embedding_cache *cache, const char *path, const int32_t *ids,
                       int64_t count, int64_t width, const float *values)
{
    char hex[DK_SHA256_HEX_BYTES], *header = NULL;
    size_t header_size = 0, size = (size_t)values_bytes(count, width);
    const dk_safetensors_entry entries[] = {
        {"ids", DK_TENSOR((void *)ids, DK_I32, count)},
        {"embeds", DK_TENSOR((void *)values, DK_F32, count, width)}};
    if (dk_make_folders(cache->folder, NULL) != DK_OK ||
        !sum_of(hex, ids, (size_t)ids_bytes(count), values, size)) {
        return;
    }
    json_t *metadata = json_pack("{s:s, s:s}", "identity", cache->identity, "sha256", hex);
    dk_status status = dk_safetensors_header(&header, &header_size, entries, 2, metadata, NULL);
    json_decref(metadata);
    if (status == DK_OK) {
        char *temporary = dk_file_temporary(path);
        const dk_file_piece pieces[] = {
            {header, header_size}, {ids, (size_t)ids_bytes(count)}, {values, size}};
        status = dk_file_write_pieces(path, temporary, pieces, 3, NULL);
        dk_free(temporary);
        dk_free(header);
    }
    (void)status; /* a full disk costs time, not the request */
}

/* With the lock held: from memory, else from the folder. Owned; NULL: not there. */
static float *look(dk_embedding_cache *cache, const int32_t *ids, int64_t count, int64_t width,
                   bool *on_disk)
{
    const entry *e = take_newest(cache, ids, count, width);
    float *values = e != NULL ? copy_of(e->values, values_bytes(count, width)) : NULL;
    *on_disk = false;
    if (values == NULL) {
        char *path = path_of(cache, ids, count);
        values = path != NULL ? read_file(cache, path, ids, count, width) : NULL;
        *on_disk = values != NULL;
        dk_free(path);
    }
    if (*on_disk) {
        add(cache, ids, count, width, values);
    }
    return values;
}

static bool is_claimed(const dk_embedding_cache *cache, const int32_t *ids, int64_t count,
                       int64_t width)
{
    for (const dk_embedding_claim *c = cache->claims; c != NULL; c = c->next) {
        if (c->count == count && c->width == width &&
            memcmp(c->ids, ids, (size_t)ids_bytes(count)) == 0) {
            return true;
        }
    }
    return false;
}

/* Waits a moment for a claim to be settled; false: nobody is to wait any longer. */
static bool wait_for_claim(dk_embedding_cache *cache, const dk_nn *waiter)
{
    enum { LOOK_UP_NS = 20 * 1000 * 1000, SECOND_NS = 1000 * 1000 * 1000 };
    struct timespec until;
    if (waiter == NULL || dk_nn_stops(waiter->cancel) || dk_nn_stops(waiter->own_cancel)) {
        return false;
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += LOOK_UP_NS;
    until.tv_sec += until.tv_nsec / SECOND_NS;
    until.tv_nsec %= SECOND_NS;
    pthread_cond_timedwait(&cache->settled, &cache->lock, &until);
    return true;
}

static dk_embedding_claim *new_claim(dk_embedding_cache *cache, const int32_t *ids,
                                     int64_t count, int64_t width, bool ahead)
{
    dk_embedding_claim *claim = dk_alloc(sizeof *claim);
    *claim = (dk_embedding_claim){.next = cache->claims,
                                  .ids = dk_alloc((size_t)ids_bytes(count)),
                                  .count = count,
                                  .width = width,
                                  .ahead = ahead};
    memcpy(claim->ids, ids, (size_t)ids_bytes(count));
    cache->claims = claim;
    return claim;
}

float *dk_embedding_cache_claim(dk_embedding_cache *cache, const int32_t *ids, int64_t count,
                                int64_t width, const dk_nn *waiter, dk_embedding_claim **claim)
{
    bool on_disk = false, waits = true;
    *claim = NULL;
    if (cache == NULL) {
        return NULL;
    }
    pthread_mutex_lock(&cache->lock);
    while (waits && is_claimed(cache, ids, count, width)) {
        waits = wait_for_claim(cache, waiter);
    }
    float *values = waits ? look(cache, ids, count, width, &on_disk) : NULL;
    if (waits && values == NULL) {
        *claim = new_claim(cache, ids, count, width, waiter == NULL);
    }
    if (waiter != NULL) {
        cache->stats.hits += values != NULL && !on_disk;
        cache->stats.disk_hits += on_disk;
        cache->stats.misses += values == NULL;
    }
    pthread_mutex_unlock(&cache->lock);
    return values;
}

static void unlink_claim(dk_embedding_cache *cache, const dk_embedding_claim *claim)
{
    dk_embedding_claim **at = &cache->claims;
    while (*at != claim) {
        at = &(*at)->next;
    }
    *at = claim->next;
}

void dk_embedding_cache_settle(dk_embedding_cache *cache, dk_embedding_claim **claim,
                               const float *values)
{
    dk_embedding_claim *c = *claim;
    if (c == NULL) {
        return;
    }
    pthread_mutex_lock(&cache->lock);
    char *path = values != NULL ? path_of(cache, c->ids, c->count) : NULL;
    if (values != NULL) {
        add(cache, c->ids, c->count, c->width, values);
        cache->stats.prepared += c->ahead;
    }
    if (path != NULL) {
        write_file(cache, path, c->ids, c->count, c->width, values);
    }
    unlink_claim(cache, c);
    pthread_cond_broadcast(&cache->settled);
    pthread_mutex_unlock(&cache->lock);
    dk_free(path);
    dk_free(c->ids);
    dk_free(c);
    *claim = NULL;
}

void dk_embedding_cache_stats(dk_embedding_cache *cache, dk_embedding_stats *out)
{
    *out = (dk_embedding_stats){0};
    if (cache != NULL) {
        pthread_mutex_lock(&cache->lock);
        *out = cache->stats;
        pthread_mutex_unlock(&cache->lock);
    }
}
