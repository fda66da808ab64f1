/* Character references of HTML in text. */
#ifndef DK_TOKENIZER_HTML_H
#define DK_TOKENIZER_HTML_H

#include <stddef.h>

#include "base/string.h"

/* Appends text to out with character references replaced. text is valid UTF-8. */

/* As Python's html.unescape: every reference of the standard, also those without ';' (the
   longest name that fits), numbers with the standard's replacements. */
void dk_html_unescape(dk_string *out, const char *text, size_t size);

/* As ftfy's unescape_html: only "&name;" and "&#number;" that are closed and known whole, and
   upper-case spellings such as "&EACUTE;". */
void dk_html_unescape_strict(dk_string *out, const char *text, size_t size);

#endif
