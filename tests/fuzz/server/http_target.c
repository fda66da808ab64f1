/* Fuzz target: a request's target, its route, and its Range header. The input is the target, a
   line end, and the header. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/string.h"
#include "server/http/range.h"
#include "server/http/route.h"
#include "server/http/target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_target(const dk_http_target *target)
{
    static const dk_http_route table[] = {
        {"GET", "/", 0, NULL},
        {"GET", "/v1/videos/{id}/content", 0, NULL},
        {"POST", "/v1/{a}/{b}", 0, NULL},
    };
    const dk_http_routes routes = {table, 3};
    const char *captures[DK_HTTP_MAX_CAPTURES];
    if (target->path[0] != '/' || strstr(target->path, "/../") != NULL ||
        target->segment_count < 1 || target->pair_count > DK_HTTP_MAX_PAIRS) {
        abort();
    }
    for (int i = 0; i < target->segment_count && i < DK_HTTP_MAX_SEGMENTS; i++) {
        if (strcmp(target->segments[i], "..") == 0 || strcmp(target->segments[i], ".") == 0) {
            abort();
        }
    }
    for (int i = 0; i < target->pair_count; i++) {
        if (strlen(target->pairs[i].name) + strlen(target->pairs[i].value) > 1 << 24) {
            abort();
        }
    }
    const dk_http_route *found = dk_http_route_find(&routes, "GET", target, captures);
    if (found == &table[1] && (captures[0] == NULL || captures[0][0] == '\0')) {
        abort();
    }
    dk_string methods = DK_STRING_EMPTY;
    dk_http_route_methods(&routes, target, &methods);
    dk_string_release(&methods);
}

static void check_range(const char *text)
{
    static const uint64_t sizes[] = {0, 1, 10, 1000000, UINT64_MAX};
    for (int i = 0; i < 5; i++) {
        uint64_t first = 0, length = 0;
        if (dk_http_range_parse(text, sizes[i], &first, &length) == DK_HTTP_RANGE_PART &&
            (length == 0 || first >= sizes[i] || length > sizes[i] - first)) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = dk_strndup((const char *)data, size);
    char *line_end = memchr(text, '\n', size);
    dk_http_target target;
    if (line_end != NULL) {
        *line_end = '\0';
        check_range(line_end + 1);
    }
    if (dk_http_target_parse(&target, text, NULL) == DK_OK) {
        check_target(&target);
        dk_http_target_release(&target);
    }
    dk_free(text);
    return 0;
}
