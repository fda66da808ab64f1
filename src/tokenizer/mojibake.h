/* Mojibake: UTF-8 that was read as a one-byte encoding, such as "cafÃ©" for "café". */
#ifndef DK_TOKENIZER_MOJIBAKE_H
#define DK_TOKENIZER_MOJIBAKE_H

#include <stdint.h>

#include "base/string.h"

/* What byte c (0x80 to 0x9F) means in Windows-1252; the five bytes that mean nothing there, and
   every other c, stay. */
uint32_t dk_windows_1252(uint32_t c);

/* Repairs text (valid UTF-8, one line) as ftfy's fix_encoding does where the wrong encoding was
   Latin-1 or Windows-1252: the whole text, or sequences inside it; with its test of whether
   text looks bad, restricted to the characters of these two. Not done: the eight other
   encodings that ftfy tries, and sequences with lost bytes (U+FFFD in them). */
void dk_mojibake_fix(dk_string *text);

#endif
