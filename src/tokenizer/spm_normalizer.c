/* SentencePiece's normaliser, followed from sentencepiece 0.2 (src/normalizer.cc). */
#include <string.h>

#include "tokenizer/normalizer.h"
#include "tokenizer/utf8.h"

static const char meta_space[] = "\xE2\x96\x81"; /* U+2581 */

void dk_spm_rules_release(dk_spm_rules *rules)
{
    dk_charsmap_release(&rules->charsmap);
    dk_vocab_release(&rules->keep);
}

typedef struct span {
    const char *text; /* what the prefix becomes */
    size_t length;
    size_t consumed;
} span;

/* The longest prefix that is a user-defined symbol (kept), else the longest that the map knows,
   else one character. */
static span normalize_prefix(const dk_spm_rules *rules, const char *text, size_t size)
{
    size_t kept = 0, consumed = 0;
    dk_vocab_walk walk = dk_vocab_walk_begin(&rules->keep, text, size);
    while (dk_vocab_walk_next(&walk)) {
        kept = walk.length;
    }
    if (kept > 0) {
        return (span){text, kept, kept};
    }
    const char *mapped = dk_charsmap_find(&rules->charsmap, text, size, true, &consumed);
    if (mapped != NULL) {
        /* A map may end inside a character only in a damaged file; the rest is skipped. */
        while (consumed < size && ((unsigned char)text[consumed] & 0xC0) == 0x80) {
            consumed++;
        }
        return (span){mapped, strlen(mapped), consumed};
    }
    consumed = dk_utf8_length((unsigned char)text[0]);
    return (span){text, consumed, consumed};
}

static void append_escaped(const dk_spm_rules *rules, dk_string *out, const char *text,
                           size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (rules->escape_whitespaces && text[i] == ' ') {
            dk_string_puts(out, meta_space);
        } else {
            dk_string_putc(out, text[i]);
        }
    }
}

static bool ends_with(const dk_string *text, const char *suffix)
{
    size_t length = strlen(suffix); /* the text may hold NUL characters, the suffix does not */
    return text->length >= length &&
           memcmp(text->data + text->length - length, suffix, length) == 0;
}

bool dk_spm_normalize(const dk_spm_rules *rules, dk_string *out, const char *text, size_t size,
                      size_t limit)
{
    const char *space = rules->escape_whitespaces ? meta_space : " ";
    size_t at = 0, start = out->length;
    while (rules->remove_extra_whitespaces && at < size) {
        span prefix = normalize_prefix(rules, text + at, size - at);
        if (prefix.length != 1 || prefix.text[0] != ' ') {
            break;
        }
        at += prefix.consumed;
    }
    if (at == size) {
        return true;
    }
    if (rules->add_dummy_prefix && !rules->whitespace_as_suffix) {
        dk_string_puts(out, space);
    }
    bool after_space = rules->remove_extra_whitespaces;
    while (at < size) {
        span prefix = normalize_prefix(rules, text + at, size - at);
        at += prefix.consumed;
        while (after_space && prefix.length > 0 && prefix.text[0] == ' ') {
            prefix.text++;
            prefix.length--;
        }
        if (prefix.length > 0) {
            append_escaped(rules, out, prefix.text, prefix.length);
            after_space =
                rules->remove_extra_whitespaces && prefix.text[prefix.length - 1] == ' ';
        }
        if (out->length > limit) {
            return false;
        }
    }
    while (rules->remove_extra_whitespaces && out->length > start && ends_with(out, space)) {
        out->length -= strlen(space);
        out->data[out->length] = '\0';
    }
    if (rules->add_dummy_prefix && rules->whitespace_as_suffix) {
        dk_string_puts(out, space);
    }
    return true;
}
