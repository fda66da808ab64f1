/* A vocabulary: pieces of text with ids, found by exact text or by every piece that starts a
   text. The pieces are sorted by their bytes; a search narrows the range byte by byte, so it
   costs no more than the longest prefix that occurs in the vocabulary. */
#ifndef DK_TOKENIZER_VOCAB_H
#define DK_TOKENIZER_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dk_vocab_piece {
    uint32_t offset, length; /* in `bytes` */
    int32_t id;
} dk_vocab_piece;

typedef struct dk_vocab {
    char *bytes; /* owned */
    size_t bytes_length, bytes_capacity;
    dk_vocab_piece *pieces; /* owned; sorted after dk_vocab_sort */
    size_t count, capacity;
    uint32_t first[257]; /* pieces[first[b]] to pieces[first[b + 1]] start with byte b */
} dk_vocab;

enum { DK_VOCAB_MAX_BYTES = 1 << 30 };

void dk_vocab_init(dk_vocab *vocab);
void dk_vocab_release(dk_vocab *vocab);

/* Adds a piece; false when the vocabulary would pass DK_VOCAB_MAX_BYTES. Of pieces with equal
   text the last one added is found. An empty text is never found. */
bool dk_vocab_add(dk_vocab *vocab, const char *text, size_t length, int32_t id);

/* To be called once, after the last piece and before the first search. */
void dk_vocab_sort(dk_vocab *vocab);

/* The piece's id, or -1. */
int32_t dk_vocab_find(const dk_vocab *vocab, const char *text, size_t length);

/* Walks the pieces that are prefixes of text, shortest first:
     dk_vocab_walk walk = dk_vocab_walk_begin(vocab, text, size);
     while (dk_vocab_walk_next(&walk)) { … walk.length, walk.id … } */
typedef struct dk_vocab_walk {
    const dk_vocab *vocab;
    const char *text;
    size_t size, low, high, depth;
    size_t length; /* of the piece found */
    int32_t id;
} dk_vocab_walk;

dk_vocab_walk dk_vocab_walk_begin(const dk_vocab *vocab, const char *text, size_t size);
bool dk_vocab_walk_next(dk_vocab_walk *walk);

#endif
