/* Fuzz target: forms. The input is the Content-Type header, a line end, and the body. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "server/http/form.h"

enum { MAX_PARTS = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Names and data lie inside the body and end with a NUL. */
static void check_part(const dk_http_part *part, const char *body, size_t size)
{
    const char *end = body + size;
    if (part->name < body || part->name + strlen(part->name) > end || part->name[0] == '\0' ||
        part->data < body || part->data > end || part->size > (size_t)(end - part->data) ||
        part->data[part->size] != '\0') {
        abort();
    }
    const char *others[] = {part->file_name, part->content_type};
    for (int i = 0; i < 2; i++) {
        if (others[i] != NULL && (others[i] < body || others[i] + strlen(others[i]) > end)) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *line_end = size > 0 ? memchr(data, '\n', size) : NULL;
    if (line_end == NULL) {
        return 0;
    }
    char *header = dk_strndup((const char *)data, (size_t)(line_end - data));
    size_t body_size = size - (size_t)(line_end + 1 - data);
    char *body = dk_alloc(body_size + 1);
    memcpy(body, line_end + 1, body_size);
    dk_http_form form;
    if (dk_http_form_parse(&form, header, body, body_size, MAX_PARTS, NULL) == DK_OK) {
        if (form.count > MAX_PARTS) {
            abort();
        }
        for (int i = 0; i < form.count; i++) {
            check_part(&form.parts[i], body, body_size);
        }
        dk_http_form_release(&form);
    }
    dk_free(body);
    dk_free(header);
    return 0;
}
