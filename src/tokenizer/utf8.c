/* UTF-8 and character classes. The classes follow the Unicode properties that the tokenizers
   library and Python use; general categories come from utf8proc. */
#include "tokenizer/utf8.h"

#include <utf8proc.h>

#include "base/alloc.h"

size_t dk_utf8_decode(uint32_t *out, const char *text, size_t size)
{
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) {
        *out = s[0];
        return 1;
    }
    if (s[0] < 0xC2 || s[0] > 0xF4) {
        return 0;
    }
    size_t length = dk_utf8_length(s[0]);
    if (length > size) {
        return 0;
    }
    uint32_t c = s[0] & (0x7FU >> length);
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xC0) != 0x80) {
            return 0;
        }
        c = c << 6 | (s[i] & 0x3F);
    }
    if (c < smallest[length] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) {
        return 0;
    }
    *out = c;
    return length;
}

dk_status dk_utf8_check(const char *text, size_t size, const char *what, dk_error *err)
{
    for (size_t at = 0; at < size;) {
        uint32_t c;
        size_t length = dk_utf8_decode(&c, text + at, size - at);
        if (length == 0) {
            return dk_fail(err, DK_INVALID, "%s: not valid UTF-8 at byte %zu (0x%02x)", what,
                           at, (unsigned)(unsigned char)text[at]);
        }
        at += length;
    }
    return DK_OK;
}

void dk_utf8_append(dk_string *out, uint32_t c)
{
    utf8proc_uint8_t bytes[4];
    utf8proc_ssize_t length = utf8proc_encode_char((utf8proc_int32_t)c, bytes);
    dk_string_append(out, (const char *)bytes, (size_t)length);
}

bool dk_utf8_normalize(dk_string *out, const char *text, size_t size, int form)
{
    const utf8proc_uint8_t *bytes = (const utf8proc_uint8_t *)text;
    utf8proc_option_t options = (utf8proc_option_t)form;
    utf8proc_ssize_t count =
        utf8proc_decompose(bytes, (utf8proc_ssize_t)size, NULL, 0, options);
    if (count < 0) {
        return false;
    }
    utf8proc_int32_t *characters = dk_alloc(((size_t)count + 1) * sizeof(*characters));
    count = utf8proc_decompose(bytes, (utf8proc_ssize_t)size, characters, count, options);
    count = count < 0 ? count : utf8proc_normalize_utf32(characters, count, options);
    for (utf8proc_ssize_t i = 0; i < count; i++) {
        dk_utf8_append(out, (uint32_t)characters[i]);
    }
    dk_free(characters);
    return count >= 0;
}

bool dk_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

bool dk_is_python_space(uint32_t c)
{
    return dk_is_space(c) || (c >= 0x1C && c <= 0x1F);
}

bool dk_is_word(uint32_t c)
{
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9);
    }
}
