/* Mojibake repair, followed from ftfy 6.3 (fix_encoding, badness.py, chardata.py) for Latin-1
   and Windows-1252. */
#include "tokenizer/mojibake.h"

#include <stdbool.h>
#include <string.h>
#include <utf8proc.h>

#include "base/alloc.h"
#include "tokenizer/utf8.h"

/* Bytes 0x80 to 0x9F of Windows-1252; 0 where the byte means nothing and stays a control. */
static const uint16_t windows_1252[32] = {
    0x20AC, 0,      0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
    0x2039, 0x0152, 0,      0x017D, 0,      0,      0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0,      0x017E, 0x0178};

uint32_t dk_windows_1252(uint32_t c)
{
    uint16_t meant = c >= 0x80 && c <= 0x9F ? windows_1252[c - 0x80] : 0;
    return meant != 0 ? meant : c;
}

/* What a character is to the test of badness. */
enum {
    COMMON = 1,
    C1 = 2,
    BAD = 4,
    LAW = 8,
    CURRENCY = 16,
    START = 32, /* opening punctuation */
    END = 64,   /* closing punctuation */
    NUMERIC = 128,
    UPPER = 256, /* accented */
    LOWER = 512,
    THORN = 1024, /* a capital that is common in other alphabets */
    SIGNS = BAD | LAW | CURRENCY | START | END | NUMERIC,
};

/* For the character that byte 0x80 + i is in Windows-1252. */
static const uint16_t classes[128] = {
    CURRENCY, C1,      START,    BAD,      START,   COMMON,   BAD,     BAD,     /* 80 */
    BAD,      BAD,     UPPER,    START,    UPPER,   C1,       UPPER,   C1,      /* 88 */
    C1,       START,   COMMON,   START,    END,     START,    COMMON,  COMMON,  /* 90 */
    BAD,      END,     LOWER,    END,      LOWER,   C1,       LOWER,   UPPER,   /* 98 */
    COMMON,   START,   CURRENCY, CURRENCY, BAD,     CURRENCY, BAD,     LAW,     /* A0 */
    BAD,      START,   BAD,      START,    BAD,     COMMON,   END,     BAD,     /* A8 */
    0,        NUMERIC, NUMERIC,  NUMERIC,  COMMON,  NUMERIC,  LAW,     COMMON,  /* B0 */
    BAD,      NUMERIC, BAD,      END,      NUMERIC, NUMERIC,  NUMERIC, START,   /* B8 */
    UPPER,    UPPER,   UPPER,    UPPER,    UPPER,   UPPER,    UPPER,   UPPER,   /* C0 */
    UPPER,    UPPER,   UPPER,    UPPER,    UPPER,   UPPER,    UPPER,   UPPER,   /* C8 */
    UPPER,    UPPER,   0,        0,        0,       0,        0,       NUMERIC, /* D0 */
    UPPER,    0,       0,        0,        UPPER,   UPPER,    THORN,   LOWER,   /* D8 */
    LOWER,    LOWER,   LOWER,    LOWER,    LOWER,   LOWER,    LOWER,   LOWER,   /* E0 */
    LOWER,    LOWER,   LOWER,    LOWER,    LOWER,   LOWER,    LOWER,   LOWER,   /* E8 */
    LOWER,    LOWER,   0,        0,        0,       0,        0,       NUMERIC, /* F0 */
    0,        0,       0,        0,        LOWER,   0,        0,       0,       /* F8 */
};

/* A line as characters. */
typedef struct line {
    uint32_t *c; /* owned */
    size_t count;
} line;

static line line_of(const char *text, size_t size)
{
    line l = {.c = dk_alloc(size * sizeof(*l.c))};
    for (size_t at = 0; at < size;) {
        at += dk_utf8_decode(&l.c[l.count++], text + at, size - at);
    }
    return l;
}

/* The byte that stands for c in Windows-1252 or Latin-1, or -1. Where Windows-1252 has no
   meaning for a byte, that byte's control character stands for it (ftfy calls this "sloppy").
 */
static int encode_character(uint32_t c, bool windows)
{
    if (c < 0x80 || (c >= 0xA0 && c <= 0xFF)) {
        return windows && c == 0x1A ? -1 : (int)c;
    }
    if (!windows || c < 0x80) {
        return c <= 0xFF ? (int)c : -1;
    }
    for (int i = 0; i < 32; i++) {
        uint32_t meant = windows_1252[i] != 0 ? windows_1252[i] : (uint32_t)(0x80 + i);
        if (meant == c) {
            return 0x80 + i;
        }
    }
    return -1;
}

static unsigned class_of(uint32_t c)
{
    if (c >= 0x80 && c <= 0x9F) {
        return C1;
    }
    int byte = c >= 0x80 ? encode_character(c, true) : -1;
    return byte >= 0x80 ? classes[byte - 0x80] : 0;
}

static bool is_letter(uint32_t c, bool lower_only)
{
    return (c >= 'a' && c <= 'z') || (!lower_only && c >= 'A' && c <= 'Z');
}

static bool is_one_of(uint32_t c, const uint32_t *list)
{
    while (*list != 0 && *list != c) {
        list++;
    }
    return *list != 0;
}

/* \w of Python. */
static bool is_python_word(uint32_t c)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return c == '_' || (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
           (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}

/* Pairs of classes that hardly follow each other in words or in punctuation. */
static bool is_bad_pair(unsigned a, unsigned b)
{
    return a == C1 || (a & (SIGNS | UPPER | LOWER) && b & BAD) ||
           (a & BAD && b & (SIGNS | UPPER | LOWER)) ||
           (a & (LOWER | END | CURRENCY | NUMERIC) && b & UPPER) ||
           (a & (END | CURRENCY | NUMERIC) && b & LOWER) ||
           (a & (LOWER | END) && b & CURRENCY) || (a & UPPER && b & (NUMERIC | LAW)) ||
           (a & (CURRENCY | NUMERIC) && b & START);
}

static bool is_bad_triple(const uint32_t *c, unsigned k0, unsigned k1, unsigned k2)
{
    return (is_letter(c[0], false) && k1 & THORN && k2 & BAD) ||
           (dk_is_python_space(c[0]) && k1 & UPPER && k2 & CURRENCY) ||
           (k0 & (LOWER | UPPER | CURRENCY | END) && k1 & START && k2 & NUMERIC) ||
           (k0 & (LOWER | UPPER | CURRENCY | NUMERIC | LAW) && k1 & END && k2 & START) ||
           (is_letter(c[0], true) && k1 & UPPER && k2 & (START | CURRENCY)) ||
           (k0 & (LOWER | UPPER) && k1 & (START | END) && is_python_word(c[2]));
}

/* Ø or Ù with something that would continue a two-byte sequence. */
static bool is_stroke_pair(const uint32_t *c)
{
    static const uint32_t others[] = {0x178, 0x160, 0xAE, 0xB0, 0xB5, 0xBB, 0};
    return (c[0] == 0xD8 || c[0] == 0xD9) &&
           (class_of(c[1]) & (COMMON | CURRENCY | BAD | NUMERIC | START) ||
            is_one_of(c[1], others));
}

/* A with circumflex or tilde before a space. */
static bool is_lonely_capital(const uint32_t *c, size_t at)
{
    if ((c[0] != 0xC2 && c[0] != 0xC3) || c[1] != ' ') {
        return false;
    }
    return at == 0 || is_letter(c[-1], true) ||
           (at > 1 && dk_is_python_space(c[-1]) && is_letter(c[-2], true));
}

/* What the first byte of a two-byte sequence is read as, with what would follow it. */
static bool is_capital_pair(const uint32_t *c, unsigned k0, unsigned k1)
{
    static const uint32_t followers[] = {0x20AC, 0x153, 0x160,  0x161,  0xA2, 0xA3, 0x178,
                                         0x17E,  0xA0,  0xAD,   0xAE,   0xA9, 0xB0, 0xB7,
                                         0xBB,   0xB4,  0x2013, 0x2014, 0};
    bool capital = c[0] == 0xC2 || c[0] == 0xC3 || c[0] == 0xCE || c[0] == 0xD0;
    return (capital && (k1 & (START | END) || is_one_of(c[1], followers))) ||
           (c[0] == 0xC3 && c[1] == 0xA1) || (k0 & UPPER && c[1] == 0xB0);
}

/* Sequences that mojibake is full of. Two characters before c and three behind it may be read.
 */
static bool is_bad_sequence(const uint32_t *c, size_t at, size_t left)
{
    static const uint32_t after_a_grave[] = {0xB2, 0xB5, 0xB9, 0xBC, 0xBD, 0xBE, 0};
    static const uint32_t squares[] = {0xB2, 0xB3, 0}, marks[] = {'.', ',', '?', '!', 0};
    unsigned k0 = class_of(c[0]), k1 = class_of(c[1]);
    if ((c[0] == 0x152 || c[0] == 0x153) && left > 1 && !is_letter(c[1], false)) {
        return true;
    }
    if (is_capital_pair(c, k0, k1) || is_lonely_capital(c, at) ||
        (is_stroke_pair(c) && is_stroke_pair(c + 2)) ||
        (c[0] == 0xD7 && is_one_of(c[1], squares)) ||
        (c[0] == 0xE0 && is_one_of(c[1], after_a_grave))) {
        return true;
    }
    bool before = is_letter(c[0], true) || k0 & END || is_one_of(c[0], marks);
    return before && c[1] == 0xC2 && (c[2] == ' ' || class_of(c[2]) & (START | END));
}

static bool is_bad(const uint32_t *c, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t window[6] = {0}; /* two characters before, four from i; 0 has no class */
        size_t back = i < 2 ? i : 2, left = count - i;
        memcpy(window + 2 - back, c + i - back, back * sizeof(*c));
        memcpy(window + 2, c + i, (left < 4 ? left : 4) * sizeof(*c));
        const uint32_t *w = window + 2;
        unsigned k0 = class_of(w[0]), k1 = class_of(w[1]), k2 = class_of(w[2]);
        if (is_bad_pair(k0, k1) || is_bad_triple(w, k0, k1, k2) ||
            is_bad_sequence(w, i, left)) {
            return true;
        }
    }
    return false;
}

/* A byte that continues a sequence and is neither 0x85 nor 0xA0, which are often lost. */
static bool continues(unsigned char b)
{
    return b >= 0x80 && b <= 0xBF && b != 0x85 && b != 0xA0;
}

/* The length of a UTF-8 sequence in which one 0xA0 became a space, or 0. There are three bytes
   behind b's end that may be read. */
static size_t altered_length(const unsigned char *b)
{
    bool any1 = (b[1] & 0xC0) == 0x80, any2 = any1 && (b[2] & 0xC0) == 0x80;
    if (b[0] != 0 && strchr("\xC2\xC3\xC5\xCE\xD0\xD9", b[0]) != NULL && b[1] == ' ') {
        return 2;
    }
    if ((b[0] == 0xE2 || b[0] == 0xE3) && b[1] == ' ' && continues(b[2])) {
        return 3;
    }
    if (b[0] >= 0xE0 && b[0] <= 0xE3 && continues(b[1]) && b[2] == ' ') {
        return 3;
    }
    if (b[0] != 0xF0) {
        return 0;
    }
    bool last = (b[3] & 0xC0) == 0x80;
    bool lost = (b[1] == ' ' && (b[2] & 0xC0) == 0x80 && last) ||
                (any1 && b[2] == ' ' && last) || (any2 && b[3] == ' ');
    return lost ? 4 : 0;
}

/* "à" as a word became 0xC3 and a space: the space is both its second byte and a space. */
static bool is_a_grave_word(const char *behind)
{
    static const char *const words[] = {" ", "quele", "quela", "quilo", "s "};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (dk_starts_with(behind, words[i])) {
            return false; /* Portuguese contractions, whose "à" begins a longer word */
        }
    }
    return true;
}

static void restore_spaces(dk_string *bytes)
{
    dk_string out = DK_STRING_EMPTY;
    dk_string_append(bytes, "\0\0\0", 3);
    size_t size = bytes->length - 3;
    for (size_t at = 0; at < size;) {
        const unsigned char *b = (const unsigned char *)bytes->data + at;
        size_t length = altered_length(b);
        if (b[0] == 0xC3 && b[1] == ' ' && is_a_grave_word((const char *)b + 2)) {
            dk_string_puts(&out, "\xC3\xA0 ");
            at += 2;
            continue;
        }
        for (size_t i = 0; i < (length > 0 ? length : 1); i++) {
            dk_string_putc(&out, length > 0 && b[i] == ' ' ? '\xA0' : (char)b[i]);
        }
        at += length > 0 ? length : 1;
    }
    dk_string_release(bytes);
    *bytes = out;
}

static bool encode_line(dk_string *out, const uint32_t *c, size_t count, bool windows)
{
    for (size_t i = 0; i < count; i++) {
        int byte = encode_character(c[i], windows);
        if (byte < 0) {
            return false;
        }
        dk_string_putc(out, (char)byte);
    }
    return true;
}

/* Reads the characters as bytes of Latin-1 or Windows-1252, and the bytes as UTF-8. */
static bool decode_whole(dk_string *out, const uint32_t *c, size_t count)
{
    for (int windows = 0; windows < 2; windows++) {
        dk_string_clear(out);
        if (encode_line(out, c, count, windows == 1)) {
            restore_spaces(out);
            if (dk_utf8_check(dk_string_text(out), out->length, "", NULL) == DK_OK) {
                return true;
            }
        }
    }
    return false;
}

/* May c be a byte behind the first of a sequence? `strict` leaves out a space and punctuation
   that stands in ordinary text. */
static bool is_continuation(uint32_t c, bool strict)
{
    static const uint32_t elsewhere[] = {0xC6, 0xD8, 0xE6, 0xF8, 0}; /* in other encodings */
    static const uint32_t ordinary[] = {' ',    0x2013, 0x2014, 0x2018, 0x2019, 0x201A,
                                        0x201C, 0x201D, 0x201E, 0x2022, 0x2026, 0};
    if (is_one_of(c, ordinary)) {
        return !strict;
    }
    int byte = c >= 0x80 ? encode_character(c, true) : -1;
    return (c >= 0x80 && c <= 0xBF) || (byte >= 0x80 && byte <= 0x9F) ||
           is_one_of(c, elsewhere);
}

/* The length of what looks like one misread UTF-8 sequence, or 0. */
static size_t sequence_length(const uint32_t *c, size_t left)
{
    size_t length = (c[0] >= 0xC2 && c[0] <= 0xDF) || c[0] == 0x160 || c[0] == 0x17D ? 2
                    : c[0] >= 0xE0 && c[0] <= 0xEF                                   ? 3
                    : c[0] == 0xF0 || c[0] == 0xF3 || c[0] == 0x161                  ? 4
                                                                                     : 0;
    if (length > left) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if (!is_continuation(c[i], false)) {
            return 0;
        }
    }
    return length;
}

static void append_characters(dk_string *out, const uint32_t *c, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        dk_utf8_append(out, c[i]);
    }
}

/* Repairs runs of sequences inside text that is otherwise sound. */
static void fix_inside(dk_string *out, const line *l)
{
    for (size_t at = 0; at < l->count;) {
        size_t end = at, length;
        bool inside = at > 0 && is_continuation(l->c[at - 1], true);
        while (!inside && end < l->count &&
               (length = sequence_length(l->c + end, l->count - end)) > 0) {
            end += length;
        }
        dk_string run = DK_STRING_EMPTY;
        if (end > at && end - at < l->count && is_bad(l->c + at, end - at)) {
            append_characters(&run, l->c + at, end - at);
            dk_mojibake_fix(&run); /* one level: the run is shorter and is one run */
            dk_string_append(out, run.data, run.length);
        } else {
            end = end > at ? end : at + 1;
            append_characters(out, l->c + at, end - at);
        }
        dk_string_release(&run);
        at = end;
    }
}

static bool has_high_byte(const dk_string *text)
{
    for (size_t i = 0; i < text->length; i++) {
        if ((unsigned char)text->data[i] >= 0x80) {
            return true;
        }
    }
    return false;
}

void dk_mojibake_fix(dk_string *text)
{
    bool changed = true; /* text may have been misread twice; every repair makes it shorter */
    while (changed && has_high_byte(text)) {
        line l = line_of(text->data, text->length);
        dk_string repaired = DK_STRING_EMPTY;
        changed = is_bad(l.c, l.count);
        if (changed && !decode_whole(&repaired, l.c, l.count)) {
            dk_string_clear(&repaired);
            fix_inside(&repaired, &l);
        }
        changed = changed && (repaired.length != text->length ||
                              memcmp(repaired.data, text->data, text->length) != 0);
        if (changed) {
            dk_string kept = *text;
            *text = repaired;
            repaired = kept;
        }
        dk_string_release(&repaired);
        dk_free(l.c);
    }
}
