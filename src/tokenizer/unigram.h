/* The Unigram model: every piece has a score, the best segmentation is found by Viterbi. Two
   readings: that of the tokenizers library, and that of SentencePiece (float scores, piece
   types). */
#ifndef DK_TOKENIZER_UNIGRAM_H
#define DK_TOKENIZER_UNIGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "tokenizer/kind.h"
#include "tokenizer/vocab.h"

/* SentencePiece's piece types (ModelProto.SentencePiece.Type). */
typedef enum dk_piece_type {
    DK_PIECE_NORMAL = 1,
    DK_PIECE_UNKNOWN,
    DK_PIECE_CONTROL,
    DK_PIECE_USER_DEFINED,
    DK_PIECE_UNUSED,
    DK_PIECE_BYTE,
} dk_piece_type;

typedef struct dk_unigram {
    dk_vocab pieces; /* what segmentation uses */
    dk_vocab others; /* SentencePiece: pieces that text never becomes (control, byte, …) */
    double *scores;  /* owned; by id */
    bool *user;      /* owned; by id: user-defined (SentencePiece) */
    size_t count, capacity;
    int32_t unk_id; /* -1: none */
    double min_score, max_score, unk_score;
    bool byte_fallback, spm;
    int32_t bytes[256]; /* ids of <0x00> to <0xFF>, -1 where there is none */
} dk_unigram;

dk_unigram *dk_unigram_create(bool spm); /* owned */
void dk_unigram_destroy(dk_unigram **unigram);

/* Adds the piece of the next id. `type` matters for SentencePiece only. */
DK_MUST_USE dk_status dk_unigram_add(dk_unigram *unigram, const char *text, size_t length,
                                     double score, dk_piece_type type, const char *where,
                                     dk_error *err);
/* To be called once after the last piece. */
DK_MUST_USE dk_status dk_unigram_finish(dk_unigram *unigram, const char *where, dk_error *err);

#endif
