/* Pictures inside of text. */
#include <string.h>
#include <strings.h>

#include "server/uploads/uploads.h"

static int digit_of(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static dk_status fail_base64(dk_string *out, size_t before, dk_error *err)
{
    if (out->data != NULL) { /* nothing is appended after a failure */
        out->length = before;
        out->data[before] = '\0';
    }
    return dk_fail(err, DK_INVALID,
                   "the picture is not base64: accepted are A-Z, a-z, 0-9, '+', '/' and '=' at "
                   "the end");
}

dk_status dk_upload_base64(dk_string *out, const char *text, size_t length, size_t max_bytes,
                           dk_error *err)
{
    const size_t before = out->length;
    uint32_t group = 0;
    int digits = 0, padding = 0;
    if (length / 4 > max_bytes / 3 + length / 64 + 1) { /* blanks make it longer */
        return dk_fail(err, DK_FORMAT, "the picture has more than %zu bytes", max_bytes);
    }
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (c == '\r' || c == '\n' || c == ' ' || c == '\t') {
            continue;
        }
        int digit = digit_of(c);
        if (c == '=' && digits >= 2 && digits + padding < 4) {
            padding++;
        } else if (digit < 0 || padding > 0) {
            return fail_base64(out, before, err);
        } else {
            group = group << 6 | (uint32_t)digit;
            digits++;
        }
        if (digits == 4) {
            const char bytes[3] = {(char)(group >> 16), (char)(group >> 8), (char)group};
            dk_string_append(out, bytes, 3);
            group = 0;
            digits = 0;
        }
    }
    if (digits == 1 || (padding > 0 && digits + padding != 4)) {
        return fail_base64(out, before, err);
    }
    if (digits > 1) {
        group <<= 6 * (4 - digits);
        const char bytes[2] = {(char)(group >> 16), (char)(group >> 8)};
        dk_string_append(out, bytes, (size_t)digits - 1);
    }
    if (out->length - before > max_bytes) {
        out->length = before;
        out->data[before] = '\0';
        return dk_fail(err, DK_FORMAT, "the picture has more than %zu bytes", max_bytes);
    }
    return DK_OK;
}

dk_status dk_upload_data_url(dk_string *out, const char *url, size_t max_bytes, dk_error *err)
{
    const char *comma = strncasecmp(url, "data:", 5) == 0 ? strchr(url, ',') : NULL;
    static const char coding[] = ";base64";
    const size_t bytes = sizeof coding - 1;
    if (comma == NULL || (size_t)(comma - url) < 5 + bytes ||
        strncasecmp(comma - bytes, coding, bytes) != 0) {
        return dk_fail(err, DK_INVALID,
                       "the picture's URL is not accepted, expected data:image/png;base64,…");
    }
    return dk_upload_base64(out, comma + 1, strlen(comma + 1), max_bytes, err);
}
