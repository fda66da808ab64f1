/* Mojibake: UTF-8 that was read as a one-byte encoding. */
#ifndef DK_TOKENIZER_MOJIBAKE_H
#define DK_TOKENIZER_MOJIBAKE_H

#include <stdint.h>

#include "base/string.h"

/* What byte c (0x80 to 0x9F) means in Windows-1252; the five bytes that mean nothing there
 * stay. */
uint32_t dk_windows_1252(uint32_t c);

/* Repairs text where ftfy's fix_encoding would and the case is plain. */
void dk_mojibake_fix(dk_string *text);

#endif
