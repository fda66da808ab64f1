/* Prompt cleaning, followed from diffusers 0.42 (pipelines/wan/pipeline_wan.py, prompt_clean),
   ftfy 6.3 (fix_text, fixes.py, chardata.py) and Python's html module. */
#include "tokenizer/clean.h"

#include <string.h>
#include <utf8proc.h>

#include "tokenizer/html.h"
#include "tokenizer/mojibake.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

/* ftfy repeats its fixes until nothing changes. Each round but the last undoes one level of
   escaping ("&amp;amp;…"); the bound keeps hostile text from costing time squared. */
enum { MAX_ROUNDS = 100 };

static const struct ligature {
    uint32_t c;
    const char *text;
} ligatures[] = {
    {0x132, "IJ"},         {0x133, "ij"},  {0x149, "'n"},        {0x1F1, "DZ"},
    {0x1F2, "Dz"},         {0x1F3, "dz"},  {0x1C4, "D\xC5\xBD"}, {0x1C5, "D\xC5\xBE"},
    {0x1C6, "d\xC5\xBE"},  {0x1C7, "LJ"},  {0x1C8, "Lj"},        {0x1C9, "lj"},
    {0x1CA, "NJ"},         {0x1CB, "Nj"},  {0x1CC, "nj"},        {0xFB00, "ff"},
    {0xFB01, "fi"},        {0xFB02, "fl"}, {0xFB03, "ffi"},      {0xFB04, "ffl"},
    {0xFB05, "\xC5\xBFt"}, {0xFB06, "st"},
};

static const char *find_ligature(uint32_t c)
{
    for (size_t i = 0; i < sizeof(ligatures) / sizeof(ligatures[0]); i++) {
        if (ligatures[i].c == c) {
            return ligatures[i].text;
        }
    }
    return NULL;
}

static void append_standard_width(dk_string *out, uint32_t c)
{
    dk_string character = DK_STRING_EMPTY;
    dk_utf8_append(&character, c);
    if (!dk_utf8_normalize(out, character.data, character.length,
                           UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT)) {
        dk_string_append(out, character.data, character.length);
    }
    dk_string_release(&character);
}

static bool is_removed_control(uint32_t c)
{
    return c <= 0x08 || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F ||
           (c >= 0x206A && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFC);
}

/* C1 controls, ligatures, width, quotes and line breaks: all of them replace one character
   without looking at its neighbours, so that one pass does what ftfy does in five. */
static void append_fixed(dk_string *out, uint32_t c)
{
    c = c >= 0x80 && c <= 0x9F ? dk_windows_1252(c) : c;
    const char *ligature = c >= 0x132 ? find_ligature(c) : NULL;
    if (ligature != NULL) {
        dk_string_puts(out, ligature);
    } else if (c == 0x3000) {
        dk_string_putc(out, ' ');
    } else if (c >= 0xFF01 && c < 0xFFF0) {
        append_standard_width(out, c);
    } else if (c == 0x2BC || (c >= 0x2018 && c <= 0x201B)) {
        dk_string_putc(out, '\'');
    } else if (c >= 0x201C && c <= 0x201F) {
        dk_string_putc(out, '"');
    } else if (c == '\r' || c == 0x2028 || c == 0x2029) {
        dk_string_putc(out, '\n');
    } else {
        dk_utf8_append(out, c);
    }
}

static void fix_characters(dk_string *out, const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        uint32_t c;
        at += dk_utf8_decode(&c, text + at, size - at);
        append_fixed(out, c);
        if (c == '\r' && at < size && text[at] == '\n') {
            at++; /* one line break */
        }
    }
}

/* The length of a terminal escape ESC [ digits and ';' letter, or 0. */
static size_t escape_length(const char *text, size_t size)
{
    size_t at = 2;
    if (size < 3 || text[0] != '\033' || text[1] != '[') {
        return 0;
    }
    while (at < size) {
        uint32_t c;
        size_t length = dk_utf8_decode(&c, text + at, size - at);
        if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) {
            return at + 1;
        }
        if (c != ';' && utf8proc_category((utf8proc_int32_t)c) != UTF8PROC_CATEGORY_ND) {
            return 0;
        }
        at += length;
    }
    return 0;
}

static void remove_controls(dk_string *out, const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        size_t escape = escape_length(text + at, size - at);
        if (escape > 0) {
            at += escape;
            continue;
        }
        uint32_t c;
        size_t length = dk_utf8_decode(&c, text + at, size - at);
        if (!is_removed_control(c)) {
            dk_string_append(out, text + at, length);
        }
        at += length;
    }
}

static void swap(dk_string *a, dk_string *b)
{
    dk_string kept = *a;
    *a = *b;
    *b = kept;
    dk_string_clear(b);
}

/* One round of ftfy's fixes on text; scratch is any string. */
static void fix_round(dk_string *text, dk_string *scratch, bool unescape)
{
    dk_string_clear(scratch);
    if (unescape) {
        dk_html_unescape_strict(scratch, dk_string_text(text), text->length);
        swap(text, scratch);
    }
    dk_mojibake_fix(text);
    fix_characters(scratch, dk_string_text(text), text->length);
    swap(text, scratch);
    remove_controls(scratch, dk_string_text(text), text->length);
    swap(text, scratch);
    if (dk_utf8_normalize(scratch, dk_string_text(text), text->length,
                          UTF8PROC_STABLE | UTF8PROC_COMPOSE)) {
        swap(text, scratch);
    }
}

static void fix_line(dk_string *out, const char *line, size_t size, bool unescape)
{
    dk_string text = DK_STRING_EMPTY, scratch = DK_STRING_EMPTY, before = DK_STRING_EMPTY;
    dk_string_append(&text, line, size);
    for (int round = 0; round < MAX_ROUNDS; round++) {
        dk_string_clear(&before);
        dk_string_append(&before, text.data, text.length);
        fix_round(&text, &scratch, unescape);
        if (text.length == before.length &&
            memcmp(dk_string_text(&text), before.data, text.length) == 0) {
            break;
        }
    }
    dk_string_append(out, dk_string_text(&text), text.length);
    dk_string_release(&before);
    dk_string_release(&scratch);
    dk_string_release(&text);
}

/* ftfy.fix_text: line by line; the first '<' ends the unescaping for all lines that follow. */
static void fix_text(dk_string *out, const char *text, size_t size)
{
    bool unescape = true;
    for (size_t at = 0; at < size;) {
        const char *newline = memchr(text + at, '\n', size - at);
        size_t end = newline != NULL ? (size_t)(newline - text) + 1 : size;
        unescape = unescape && memchr(text + at, '<', end - at) == NULL;
        fix_line(out, text + at, end - at, unescape);
        at = end;
    }
}

static void collapse_spaces(dk_string *out, const char *text, size_t size)
{
    bool pending = false;
    size_t start = out->length;
    for (size_t at = 0; at < size;) {
        uint32_t c;
        size_t length = dk_utf8_decode(&c, text + at, size - at);
        if (dk_is_python_space(c)) {
            pending = out->length > start;
        } else {
            if (pending) {
                dk_string_putc(out, ' ');
                pending = false;
            }
            dk_string_append(out, text + at, length);
        }
        at += length;
    }
}

dk_status dk_clean_prompt_wan(dk_string *out, const char *text, size_t size, dk_error *err)
{
    if (size > DK_TOKENIZER_MAX_TEXT) {
        return dk_fail(err, DK_INVALID, "the text has %zu bytes, at most %d are accepted", size,
                       (int)DK_TOKENIZER_MAX_TEXT);
    }
    DK_TRY(dk_utf8_check(text, size, "the text", err));
    dk_string work = DK_STRING_EMPTY, scratch = DK_STRING_EMPTY;
    fix_text(&work, text, size);
    for (int i = 0; i < 2; i++) {
        dk_html_unescape(&scratch, dk_string_text(&work), work.length);
        swap(&work, &scratch);
    }
    collapse_spaces(out, dk_string_text(&work), work.length);
    dk_string_append(out, "", 0); /* so that even an empty result is a C string */
    dk_string_release(&scratch);
    dk_string_release(&work);
    return DK_OK;
}
