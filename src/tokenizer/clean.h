/* Cleaning of prompts before they are tokenized. */
#ifndef DK_TOKENIZER_CLEAN_H
#define DK_TOKENIZER_CLEAN_H

#include <stddef.h>

#include "base/error.h"
#include "base/string.h"

/* Appends what WanPipeline's prompt_clean makes of text: ftfy.fix_text, html.unescape twice,
   strip, runs of white space to one space. Of ftfy, every default fix of characters: references
   of HTML (unless a '<' occurs), C1 controls, Latin ligatures, full and half width, curly
   quotes, line breaks, terminal escapes, control characters, NFC. Its repair of mojibake
   (fix_encoding) is done for Latin-1 and Windows-1252 only, see mojibake.h. Text that is not
   UTF-8 is DK_INVALID with the offset of the bad byte. */
DK_MUST_USE dk_status dk_clean_prompt_wan(dk_string *out, const char *text, size_t size,
                                          dk_error *err);

#endif
