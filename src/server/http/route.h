/* Which route a request is for. */
#ifndef DK_SERVER_HTTP_ROUTE_H
#define DK_SERVER_HTTP_ROUTE_H

#include "base/string.h"
#include "server/http/http.h"
#include "server/http/target.h"

typedef struct dk_http_routes {
    const dk_http_route *routes; /* [count], borrowed */
    int count;
} dk_http_routes;

/* The route of a method and a target, or NULL; captures receives what stood for {…}, NULL
   where the pattern has none. HEAD finds the route of GET. */
const dk_http_route *dk_http_route_find(const dk_http_routes *routes, const char *method,
                                        const dk_http_target *target,
                                        const char *captures[DK_HTTP_MAX_CAPTURES]);

/* Appends the methods that the target's path takes: "GET, HEAD, POST". False: no route has
   this path. */
bool dk_http_route_methods(const dk_http_routes *routes, const dk_http_target *target,
                           dk_string *out);

#endif
