/* UTF-8 and the few character classes that the tokenizers' rules name. */
#ifndef DK_TOKENIZER_UTF8_H
#define DK_TOKENIZER_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/string.h"

/* Bytes of the character that starts with this byte of valid UTF-8. */
static inline size_t dk_utf8_length(unsigned char first)
{
    return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

/* Decodes the character at text[0], of at most `size` > 0 bytes. Returns its length in bytes,
   or 0 when it is not valid UTF-8 (overlong, a surrogate, above U+10FFFF, cut off). */
size_t dk_utf8_decode(uint32_t *out, const char *text, size_t size);

/* DK_INVALID with the offset of the first bad byte, unless all of text is valid UTF-8. `what`
   names the text in the message. */
DK_MUST_USE dk_status dk_utf8_check(const char *text, size_t size, const char *what,
                                    dk_error *err);

/* Appends one character; c must be a Unicode scalar value. */
void dk_utf8_append(dk_string *out, uint32_t c);

/* Appends the text's Unicode normal form; `form` is utf8proc's options (UTF8PROC_COMPOSE …).
   False when the text is too large for it. */
DK_MUST_USE bool dk_utf8_normalize(dk_string *out, const char *text, size_t size, int form);

bool dk_is_space(uint32_t c);        /* White_Space, as Rust's char::is_whitespace */
bool dk_is_python_space(uint32_t c); /* str.isspace and \s of Python: also U+001C to U+001F */
bool dk_is_word(uint32_t c); /* \w: letters, marks, decimal digits, connectors, joiners */

#endif
