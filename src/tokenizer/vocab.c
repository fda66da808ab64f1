/* The sorted vocabulary. */
#include "tokenizer/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* What is sorted: the first sixteen bytes as numbers decide nearly every comparison. */
typedef struct sort_key {
    uint64_t head[2];
    const char *text;
    uint32_t length, index;
} sort_key;

void dk_vocab_init(dk_vocab *vocab)
{
    *vocab = (dk_vocab){0};
}

void dk_vocab_release(dk_vocab *vocab)
{
    dk_free(vocab->bytes);
    dk_free(vocab->pieces);
    *vocab = (dk_vocab){0};
}

bool dk_vocab_add(dk_vocab *vocab, const char *text, size_t length, int32_t id)
{
    if (length == 0) {
        return true;
    }
    if (length > DK_VOCAB_MAX_BYTES - vocab->bytes_length) {
        return false;
    }
    while (vocab->bytes_length + length > vocab->bytes_capacity) {
        vocab->bytes_capacity = vocab->bytes_capacity * 2 + 4096;
        vocab->bytes = dk_realloc(vocab->bytes, vocab->bytes_capacity);
    }
    if (vocab->count == vocab->capacity) {
        vocab->capacity = vocab->capacity * 2 + 512;
        vocab->pieces = dk_realloc(vocab->pieces, vocab->capacity * sizeof(*vocab->pieces));
    }
    memcpy(vocab->bytes + vocab->bytes_length, text, length);
    vocab->pieces[vocab->count++] = (dk_vocab_piece){
        .offset = (uint32_t)vocab->bytes_length, .length = (uint32_t)length, .id = id};
    vocab->bytes_length += length;
    return true;
}

static uint64_t head_of(const char *text, size_t length, size_t from)
{
    uint64_t head = 0;
    for (size_t i = from; i < from + 8; i++) {
        head = head << 8 | (i < length ? (unsigned char)text[i] : 0);
    }
    return head;
}

/* Orders by text; of equal texts the later comes first. */
static int compare_keys(const void *left, const void *right)
{
    const sort_key *a = left, *b = right;
    for (int i = 0; i < 2; i++) {
        if (a->head[i] != b->head[i]) {
            return a->head[i] < b->head[i] ? -1 : 1;
        }
    }
    uint32_t shorter = a->length < b->length ? a->length : b->length;
    int order = memcmp(a->text, b->text, shorter);
    if (order != 0) {
        return order;
    }
    if (a->length != b->length) {
        return a->length < b->length ? -1 : 1;
    }
    return a->index > b->index ? -1 : 1;
}

static bool same_text(const sort_key *a, const sort_key *b)
{
    return a->length == b->length && memcmp(a->text, b->text, a->length) == 0;
}

void dk_vocab_sort(dk_vocab *vocab)
{
    sort_key *keys = dk_alloc(vocab->count * sizeof(*keys));
    for (size_t i = 0; i < vocab->count; i++) {
        uint32_t length = vocab->pieces[i].length;
        const char *text = vocab->bytes + vocab->pieces[i].offset;
        keys[i] = (sort_key){
            {head_of(text, length, 0), head_of(text, length, 8)}, text, length, (uint32_t)i};
    }
    if (vocab->count > 0) {
        qsort(keys, vocab->count, sizeof(*keys), compare_keys);
    }
    dk_vocab_piece *sorted = dk_alloc(vocab->count * sizeof(*sorted));
    size_t kept = 0;
    for (size_t i = 0; i < vocab->count; i++) {
        if (i == 0 || !same_text(&keys[i], &keys[i - 1])) {
            sorted[kept++] = vocab->pieces[keys[i].index];
        }
    }
    dk_free(keys);
    dk_free(vocab->pieces);
    vocab->pieces = sorted;
    vocab->count = vocab->capacity = kept;
    size_t at = 0;
    for (unsigned b = 0; b < 256; b++) {
        vocab->first[b] = (uint32_t)at;
        while (at < kept && (unsigned char)vocab->bytes[vocab->pieces[at].offset] == b) {
            at++;
        }
    }
    vocab->first[256] = (uint32_t)at;
}

dk_vocab_walk dk_vocab_walk_begin(const dk_vocab *vocab, const char *text, size_t size)
{
    dk_vocab_walk walk = {.vocab = vocab, .text = text, .size = size};
    if (size > 0) {
        unsigned char b = (unsigned char)text[0];
        walk.low = vocab->first[b];
        walk.high = vocab->first[b + 1];
    }
    return walk;
}

/* The first index in [low, high) whose byte at `depth` is at least `byte`. All pieces there are
   longer than depth. */
static size_t lower_bound(const dk_vocab *vocab, size_t low, size_t high, size_t depth,
                          unsigned byte)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)vocab->bytes[vocab->pieces[middle].offset + depth] < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Invariant: pieces [low, high) share the first `depth` bytes with text (one byte more while
   depth is 0, from the table), and those of exactly `depth` bytes were already returned. */
bool dk_vocab_walk_next(dk_vocab_walk *walk)
{
    const dk_vocab *vocab = walk->vocab;
    while (walk->depth < walk->size && walk->low < walk->high) {
        if (walk->depth > 0) {
            unsigned byte = (unsigned char)walk->text[walk->depth];
            walk->low = lower_bound(vocab, walk->low, walk->high, walk->depth, byte);
            walk->high = lower_bound(vocab, walk->low, walk->high, walk->depth, byte + 1);
        }
        walk->depth++;
        if (walk->low < walk->high && vocab->pieces[walk->low].length == walk->depth) {
            walk->length = walk->depth;
            walk->id = vocab->pieces[walk->low].id;
            walk->low++;
            return true;
        }
    }
    return false;
}

int32_t dk_vocab_find(const dk_vocab *vocab, const char *text, size_t length)
{
    dk_vocab_walk walk = dk_vocab_walk_begin(vocab, text, length);
    int32_t id = -1;
    while (dk_vocab_walk_next(&walk)) {
        if (walk.length == length) {
            id = walk.id;
        }
    }
    return id;
}
