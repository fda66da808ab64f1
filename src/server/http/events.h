/* Event streams, as the watch and the server see them. */
#ifndef DK_SERVER_HTTP_EVENTS_H
#define DK_SERVER_HTTP_EVENTS_H

#include "server/http/http.h"
#include "server/http/watch.h"

/* Puts a comment into every stream of the list that has been silent for comment_ms. The
   watch's lock is held. */
void dk_http_streams_comment(dk_http_stream *streams, double now_ms, int comment_ms);

/* Ends every stream for its reader; their producers learn of it with the next send. */
void dk_http_streams_end(dk_http_watch *watch);

#endif
