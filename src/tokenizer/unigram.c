/* Unigram segmentation, followed from tokenizers 0.23 (models/unigram/model.rs,
   encode_optimized) and sentencepiece 0.2 (unigram_model.cc, EncodeOptimized; the processor's
   PopulateSentencePieceText). Both walk the text once and keep the best path to every place. */
#include "tokenizer/unigram.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocab_text.h"

static const double unk_penalty = 10.0;

dk_unigram *dk_unigram_create(bool spm)
{
    dk_unigram *unigram = dk_alloc(sizeof(*unigram));
    dk_vocab_init(&unigram->pieces);
    dk_vocab_init(&unigram->others);
    unigram->spm = spm;
    unigram->unk_id = -1;
    unigram->min_score = INFINITY;
    unigram->max_score = -INFINITY;
    return unigram;
}

void dk_unigram_destroy(dk_unigram **unigram)
{
    if (*unigram != NULL) {
        dk_vocab_release(&(*unigram)->pieces);
        dk_vocab_release(&(*unigram)->others);
        dk_free((*unigram)->scores);
        dk_free((*unigram)->user);
        dk_free(*unigram);
        *unigram = NULL;
    }
}

dk_status dk_unigram_add(dk_unigram *unigram, const char *text, size_t length, double score,
                         dk_piece_type type, const char *where, dk_error *err)
{
    if (!isfinite(score)) {
        return dk_fail(err, DK_FORMAT, "%s: piece %zu has score %g, expected a finite number",
                       where, unigram->count, score);
    }
    if (unigram->count == unigram->capacity) {
        unigram->capacity = unigram->capacity * 2 + 512;
        unigram->scores =
            dk_realloc(unigram->scores, unigram->capacity * sizeof(*unigram->scores));
        unigram->user = dk_realloc(unigram->user, unigram->capacity * sizeof(*unigram->user));
    }
    int32_t id = (int32_t)unigram->count;
    bool segments = !unigram->spm || type == DK_PIECE_NORMAL || type == DK_PIECE_USER_DEFINED;
    if (!dk_vocab_add(segments ? &unigram->pieces : &unigram->others, text, length, id)) {
        return dk_fail(err, DK_FORMAT, "%s: the vocabulary has more than %d bytes", where,
                       DK_VOCAB_MAX_BYTES);
    }
    unigram->scores[unigram->count] = score;
    unigram->user[unigram->count] = unigram->spm && type == DK_PIECE_USER_DEFINED;
    unigram->count++;
    if (!unigram->spm || type == DK_PIECE_NORMAL) {
        unigram->min_score = fmin(unigram->min_score, score);
        unigram->max_score = fmax(unigram->max_score, score);
    }
    return DK_OK;
}

static int32_t find_piece(const void *model, const char *piece, size_t length)
{
    const dk_unigram *unigram = model;
    int32_t id = dk_vocab_find(&unigram->pieces, piece, length);
    return id >= 0 ? id : dk_vocab_find(&unigram->others, piece, length);
}

dk_status dk_unigram_finish(dk_unigram *unigram, const char *where, dk_error *err)
{
    if (unigram->count == 0) {
        return dk_fail(err, DK_FORMAT, "%s: the vocabulary is empty", where);
    }
    if (unigram->unk_id >= 0 && (size_t)unigram->unk_id >= unigram->count) {
        return dk_fail(err, DK_FORMAT, "%s: unk_id is %d, expected less than the %zu pieces",
                       where, (int)unigram->unk_id, unigram->count);
    }
    if (!isfinite(unigram->min_score)) { /* no normal piece: nothing to compare with */
        unigram->min_score = unigram->max_score = 0;
    }
    dk_vocab_sort(&unigram->pieces);
    dk_vocab_sort(&unigram->others);
    unigram->unk_score = unigram->min_score - unk_penalty;
    if (unigram->spm) {
        unigram->unk_score = (float)unigram->unk_score;
    }
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        int length = snprintf(name, sizeof(name), "<0x%02X>", b);
        unigram->bytes[b] = find_piece(unigram, name, (size_t)length);
        if (unigram->spm && unigram->byte_fallback && unigram->bytes[b] < 0) {
            return dk_fail(err, DK_FORMAT, "%s: byte fallback is on, but piece '%s' is missing",
                           where, name);
        }
    }
    return DK_OK;
}

typedef struct node {
    double score; /* of the best path that ends here */
    size_t start; /* of its last piece */
    int32_t id;
    bool reached;
} node;

/* SentencePiece adds up in float. Of two paths with equal sums the first found stays. */
static void offer(const dk_unigram *unigram, node *target, double score, size_t start,
                  int32_t id)
{
    score = unigram->spm ? (float)score : score;
    if (!target->reached || score > target->score) {
        *target = (node){score, start, id, true};
    }
}

static double piece_score(const dk_unigram *unigram, int32_t id, size_t length)
{
    if (unigram->user[id]) { /* a bonus, so that such a symbol is always chosen */
        return (double)((float)length * (float)unigram->max_score) - 0.1;
    }
    return unigram->scores[id];
}

static void search(const dk_unigram *unigram, node *nodes, const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        double so_far = nodes[at].score;
        size_t character = dk_utf8_length((unsigned char)text[at]);
        bool has_single = false;
        dk_vocab_walk walk = dk_vocab_walk_begin(&unigram->pieces, text + at, size - at);
        while (dk_vocab_walk_next(&walk)) {
            double score = piece_score(unigram, walk.id, walk.length) + so_far;
            offer(unigram, &nodes[at + walk.length], score, at, walk.id);
            has_single = has_single || walk.length == character;
        }
        if (!has_single) {
            offer(unigram, &nodes[at + character], unigram->unk_score + so_far, at,
                  unigram->unk_id);
        }
        at += character;
    }
}

/* Text that no piece covers: bytes where the model has them, else the unknown id. */
static dk_status push_unknown(const dk_unigram *unigram, dk_ids *out, const char *text,
                              size_t size, dk_error *err)
{
    bool all_bytes = unigram->byte_fallback;
    for (size_t i = 0; i < size && all_bytes; i++) {
        all_bytes = unigram->bytes[(unsigned char)text[i]] >= 0;
    }
    for (size_t i = 0; i < size && all_bytes; i++) {
        dk_ids_push(out, unigram->bytes[(unsigned char)text[i]]);
    }
    if (all_bytes) {
        return DK_OK;
    }
    if (unigram->unk_id < 0) {
        return dk_fail(
            err, DK_INVALID,
            "the text holds characters that the tokenizer does not know, and it has no "
            "id for unknown text");
    }
    dk_ids_push(out, unigram->unk_id);
    return DK_OK;
}

/* Runs of unknown characters count as one piece. SentencePiece with byte fallback handles each
   alone, which gives the same bytes. */
static dk_status collect(const dk_unigram *unigram, dk_ids *out, const node *nodes,
                         const size_t *ends, size_t count, const char *text, dk_error *err)
{
    for (size_t i = count; i-- > 0;) {
        const node *n = &nodes[ends[i]];
        if (n->id != unigram->unk_id) {
            dk_ids_push(out, n->id);
            continue;
        }
        size_t start = n->start;
        while (unigram->unk_id >= 0 && i > 0 && nodes[ends[i - 1]].id == unigram->unk_id) {
            i--;
        }
        size_t length = ends[i] - start;
        int32_t id = unigram->spm ? -1 : find_piece(unigram, text + start, length);
        if (id >= 0) {
            dk_ids_push(out, id);
        } else {
            DK_TRY(push_unknown(unigram, out, text + start, length, err));
        }
    }
    return DK_OK;
}

static dk_status encode(const void *model, dk_ids *out, const char *text, size_t size,
                        dk_error *err)
{
    const dk_unigram *unigram = model;
    node *nodes = dk_alloc((size + 1) * sizeof(*nodes));
    size_t *ends = dk_alloc((size + 1) * sizeof(*ends)), count = 0;
    search(unigram, nodes, text, size);
    for (size_t end = size; end > 0; end = nodes[end].start) {
        ends[count++] = end;
    }
    dk_status status = collect(unigram, out, nodes, ends, count, text, err);
    dk_free(ends);
    dk_free(nodes);
    return status;
}

static dk_status add_piece(void *context, const char *text, size_t length, double score,
                           const char *where, dk_error *err)
{
    return dk_unigram_add(context, text, length, score, DK_PIECE_NORMAL, where, err);
}

static dk_status parse(void **model, const dk_model_source *source, dk_error *err)
{
    int64_t unk_id = -1;
    bool byte_fallback = false;
    if (source->vocab == NULL) {
        return dk_fail(
            err, DK_FORMAT, "%s: 'model.vocab' is %s, expected an array of [piece, score]",
            source->where, dk_json_type_name(json_object_get(source->model, "vocab")));
    }
    DK_TRY(dk_json_int(source->model, "unk_id", 0, INT32_MAX, DK_JSON_NULL_IS_ABSENT, &unk_id,
                       source->where, err));
    DK_TRY(dk_json_bool(source->model, "byte_fallback", DK_JSON_NULL_IS_ABSENT, &byte_fallback,
                        source->where, err));
    dk_unigram *unigram = dk_unigram_create(false);
    unigram->unk_id = (int32_t)unk_id;
    unigram->byte_fallback = byte_fallback;
    dk_status status = dk_vocab_text_read(source->vocab, source->vocab_size, source->where,
                                          add_piece, unigram, err);
    if (status == DK_OK) {
        status = dk_unigram_finish(unigram, source->where, err);
    }
    if (status != DK_OK) {
        dk_unigram_destroy(&unigram);
        return status;
    }
    *model = unigram;
    return DK_OK;
}

static void destroy(void **model)
{
    dk_unigram *unigram = *model;
    dk_unigram_destroy(&unigram);
    *model = NULL;
}

static size_t size_of(const void *model)
{
    return ((const dk_unigram *)model)->count;
}

const dk_tokenizer_kind dk_tokenizer_kind_unigram = {
    .type = "Unigram",
    .parse = parse,
    .destroy = destroy,
    .size = size_of,
    .find = find_piece,
    .encode = encode,
};
