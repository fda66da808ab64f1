/* Patterns are matched segment by segment; tables of routes are short, a loop does. */
#include "server/http/route.h"

#include <string.h>

static bool matches(const char *pattern, const dk_http_target *target,
                    const char *captures[DK_HTTP_MAX_CAPTURES])
{
    int captured = 0;
    memset(captures, 0, DK_HTTP_MAX_CAPTURES * sizeof *captures);
    if (target->segment_count > DK_HTTP_MAX_SEGMENTS) {
        return false;
    }
    for (int i = 0; i < target->segment_count; i++) {
        const char *segment = target->segments[i];
        if (*pattern != '/') {
            return false;
        }
        size_t length = strcspn(++pattern, "/");
        if (*pattern == '{') {
            if (segment[0] == '\0' || captured == DK_HTTP_MAX_CAPTURES) {
                return false;
            }
            captures[captured++] = segment;
        } else if (strlen(segment) != length || memcmp(segment, pattern, length) != 0) {
            return false;
        }
        pattern += length;
    }
    return *pattern == '\0';
}

const dk_http_route *dk_http_route_find(const dk_http_routes *routes, const char *method,
                                        const dk_http_target *target,
                                        const char *captures[DK_HTTP_MAX_CAPTURES])
{
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    for (int i = 0; i < routes->count; i++) {
        const dk_http_route *route = &routes->routes[i];
        if (strcmp(route->method, wanted) == 0 && matches(route->pattern, target, captures)) {
            return route;
        }
    }
    memset(captures, 0, DK_HTTP_MAX_CAPTURES * sizeof *captures);
    return NULL;
}

bool dk_http_route_methods(const dk_http_routes *routes, const dk_http_target *target,
                           dk_string *out)
{
    const char *captures[DK_HTTP_MAX_CAPTURES];
    bool found = false;
    for (int i = 0; i < routes->count; i++) {
        const dk_http_route *route = &routes->routes[i];
        if (matches(route->pattern, target, captures)) {
            bool is_get = strcmp(route->method, "GET") == 0;
            dk_string_printf(out, "%s%s%s", found ? ", " : "", route->method,
                             is_get ? ", HEAD" : "");
            found = true;
        }
    }
    return found;
}
