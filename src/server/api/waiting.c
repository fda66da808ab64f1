/* Replies that wait for jobs. */
#include "base/alloc.h"
#include "server/api/state.h"

typedef struct waiting {
    dk_api *api;
    dk_http_exchange *exchange;
    char **ids; /* [count], owned */
    int count, at;
    dk_api_reply_fn *reply;
} waiting;

static bool on_note(void *context, const dk_note *note)
{
    waiting *w = context;
    if (note->kind != DK_NOTE_END) {
        return true;
    }
    if (++w->at < w->count) {
        dk_service_watch(w->api->service, w->ids[w->at], on_note, w);
        return false;
    }
    w->reply(w->api, w->exchange, w->ids, w->count);
    for (int i = 0; i < w->count; i++) {
        dk_free(w->ids[i]);
    }
    dk_free(w->ids);
    dk_free(w);
    return false;
}

void dk_api_wait(dk_api *api, dk_http_exchange *exchange, char **ids, int count,
                 dk_api_reply_fn *reply)
{
    waiting *w = dk_alloc(sizeof *w);
    *w =
        (waiting){.api = api, .exchange = exchange, .ids = ids, .count = count, .reply = reply};
    dk_service_watch(api->service, ids[0], on_note, w);
}
