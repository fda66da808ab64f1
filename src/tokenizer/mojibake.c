/* Mojibake repair. ftfy judges text by a table of some 400 characters and tries ten encodings;
   here only the plain case is repaired: every character of the line exists in Latin-1 or
   Windows-1252, and the line's bytes in that encoding are valid UTF-8. */
#include "tokenizer/mojibake.h"

#include <stdbool.h>

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

/* The byte that stands for c in the encoding, or -1. Where Windows-1252 has no meaning for a
   byte, that byte's control character stands for it (ftfy calls this "sloppy"). */
static int encode_character(uint32_t c, bool windows)
{
    if (c < 0x80 || (c >= 0xA0 && c <= 0xFF)) {
        return (int)c;
    }
    if (!windows) {
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

static bool encode_line(dk_string *out, const dk_string *text, bool windows)
{
    bool any = false;
    for (size_t at = 0; at < text->length;) {
        uint32_t c;
        at += dk_utf8_decode(&c, text->data + at, text->length - at);
        int byte = encode_character(c, windows);
        if (byte < 0) {
            return false;
        }
        any = any || byte >= 0x80;
        dk_string_putc(out, (char)byte);
    }
    return any;
}

void dk_mojibake_fix(dk_string *text)
{
    dk_string bytes = DK_STRING_EMPTY;
    for (int windows = 0; windows < 2;) {
        dk_string_clear(&bytes);
        if (encode_line(&bytes, text, windows == 1) &&
            dk_utf8_check(bytes.data, bytes.length, "", NULL) == DK_OK) {
            dk_string repaired = bytes;
            bytes = *text;
            *text = repaired;
            windows = 0; /* text may have been misread twice; every repair makes it shorter */
        } else {
            windows++;
        }
    }
    dk_string_release(&bytes);
}
