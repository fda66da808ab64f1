/* Added tokens. */
#include "tokenizer/added.h"

#include <string.h>

#include "base/alloc.h"
#include "tokenizer/utf8.h"

void dk_added_release(dk_added *added)
{
    for (size_t i = 0; i < added->count; i++) {
        dk_free(added->tokens[i].content);
    }
    dk_free(added->tokens);
    dk_vocab_release(&added->raw);
    dk_vocab_release(&added->normalized);
    *added = (dk_added){0};
}

const dk_added_token *dk_added_find(const dk_added *added, const char *content)
{
    for (size_t i = 0; i < added->count; i++) {
        if (strcmp(added->tokens[i].content, content) == 0) {
            return &added->tokens[i];
        }
    }
    return NULL;
}

dk_status dk_added_put(dk_added *added, const dk_added_token *token, const char *where,
                       dk_error *err)
{
    if (token->content[0] == '\0' || dk_added_find(added, token->content) != NULL) {
        return DK_OK;
    }
    if (added->count == DK_ADDED_MAX) {
        return dk_fail(err, DK_FORMAT, "%s: more than %d added tokens", where, DK_ADDED_MAX);
    }
    if (added->count == added->capacity) {
        added->capacity = added->capacity * 2 + 16;
        added->tokens = dk_realloc(added->tokens, added->capacity * sizeof(*added->tokens));
    }
    dk_added_token *place = &added->tokens[added->count++];
    *place = *token;
    place->content = dk_strdup(token->content);
    return DK_OK;
}

dk_status dk_added_finish(dk_added *added, const dk_normalizer *normalizer, dk_error *err)
{
    dk_string text = DK_STRING_EMPTY;
    dk_status status = DK_OK;
    for (size_t i = 0; i < added->count; i++) {
        const dk_added_token *token = &added->tokens[i];
        dk_string_clear(&text);
        dk_string_puts(&text, token->content);
        if (token->normalized) {
            DK_TRY_DONE(dk_normalizer_apply(normalizer, &text, err));
        }
        dk_vocab *vocab = token->normalized ? &added->normalized : &added->raw;
        if (!dk_vocab_add(vocab, dk_string_text(&text), text.length, (int32_t)i)) {
            status = dk_fail(err, DK_FORMAT, "the added tokens are too long");
            goto done;
        }
    }
    dk_vocab_sort(&added->raw);
    dk_vocab_sort(&added->normalized);
done:
    dk_string_release(&text);
    return status;
}

static void push_span(dk_spans *spans, size_t start, size_t end, int32_t id)
{
    if (start >= end) {
        return;
    }
    if (spans->count == spans->capacity) {
        spans->capacity = spans->capacity * 2 + 16;
        spans->items = dk_realloc(spans->items, spans->capacity * sizeof(*spans->items));
    }
    spans->items[spans->count++] = (dk_span){start, end, id};
}

void dk_spans_release(dk_spans *spans)
{
    dk_free(spans->items);
    *spans = (dk_spans){0};
}

/* The start of the character that ends before `at` > 0. */
static size_t previous(const char *text, size_t at)
{
    at--;
    while (at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80) {
        at--;
    }
    return at;
}

static bool stands_alone(const char *text, size_t size, size_t start, size_t end)
{
    uint32_t c;
    if (start > 0) {
        size_t at = previous(text, start);
        if (dk_utf8_decode(&c, text + at, size - at) > 0 && dk_is_word(c)) {
            return false;
        }
    }
    return end == size || dk_utf8_decode(&c, text + end, size - end) == 0 || !dk_is_word(c);
}

static size_t skip_spaces_left(const char *text, size_t size, size_t at, size_t floor)
{
    while (at > floor) {
        uint32_t c;
        size_t before = previous(text, at);
        if (dk_utf8_decode(&c, text + before, size - before) == 0 || !dk_is_space(c)) {
            break;
        }
        at = before;
    }
    return at > floor ? at : floor;
}

static size_t skip_spaces_right(const char *text, size_t size, size_t at)
{
    uint32_t c;
    size_t length;
    while (at < size && (length = dk_utf8_decode(&c, text + at, size - at)) > 0 &&
           dk_is_space(c)) {
        at += length;
    }
    return at;
}

void dk_added_split(const dk_added *added, const dk_vocab *vocab, const char *text, size_t size,
                    dk_spans *spans)
{
    size_t done = 0; /* everything before it is in a span */
    spans->count = 0;
    for (size_t at = 0; at < size;) {
        const dk_added_token *token = NULL;
        size_t end = at;
        dk_vocab_walk walk = dk_vocab_walk_begin(vocab, text + at, size - at);
        while (dk_vocab_walk_next(&walk)) {
            token = &added->tokens[walk.id];
            end = at + walk.length;
        }
        if (token == NULL) {
            at++;
            continue;
        }
        size_t start = at;
        at = end;
        if (token->single_word && !stands_alone(text, size, start, end)) {
            continue;
        }
        start = token->lstrip ? skip_spaces_left(text, size, start, done) : start;
        end = token->rstrip ? skip_spaces_right(text, size, end) : end;
        push_span(spans, done, start, -1);
        push_span(spans, start, end, token->id);
        done = at = end;
    }
    push_span(spans, done, size, -1);
}
