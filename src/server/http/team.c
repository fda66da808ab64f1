/* Handler threads. */
#include "server/http/team.h"

#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "server/http/internal.h"

dk_status dk_http_thread_create(pthread_t *out, void *(*run)(void *), void *context,
                                dk_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(out, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code == 0
               ? DK_OK
               : dk_fail(err, DK_MEMORY, "a thread of the HTTP server cannot be started: %s",
                         strerror(code));
}

/* The next exchange; NULL when the team stops. */
static dk_http_exchange *pop(dk_http_team *team)
{
    pthread_mutex_lock(&team->lock);
    while (team->first == NULL && !team->stopping) {
        pthread_cond_wait(&team->arrived, &team->lock);
    }
    dk_http_exchange *exchange = team->stopping ? NULL : team->first;
    if (exchange != NULL) {
        team->first = exchange->next;
        team->last = team->first != NULL ? team->last : NULL;
    }
    pthread_mutex_unlock(&team->lock);
    return exchange;
}

static void *work(void *context)
{
    dk_http_team *team = context;
    for (dk_http_exchange *e = pop(team); e != NULL; e = pop(team)) {
        dk_http_exchange_run(e);
    }
    return NULL;
}

dk_status dk_http_team_init(dk_http_team *team, int threads, dk_error *err)
{
    dk_status status = DK_OK;
    *team = (dk_http_team){0};
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->arrived, NULL);
    team->threads = dk_alloc((size_t)threads * sizeof *team->threads);
    while (status == DK_OK && team->count < threads) {
        status = dk_http_thread_create(&team->threads[team->count], work, team, err);
        team->count += status == DK_OK ? 1 : 0;
    }
    if (status != DK_OK) {
        dk_http_team_stop(team);
        dk_http_team_release(team);
    }
    return status;
}

void dk_http_team_stop(dk_http_team *team)
{
    pthread_mutex_lock(&team->lock);
    team->stopping = true;
    pthread_cond_broadcast(&team->arrived);
    pthread_mutex_unlock(&team->lock);
    for (int i = 0; i < team->count; i++) {
        pthread_join(team->threads[i], NULL);
    }
    while (team->first != NULL) {
        dk_http_exchange *exchange = team->first;
        team->first = exchange->next;
        dk_http_reply_problem(exchange, 503, "the server is stopping", NULL, NULL);
    }
    team->count = 0;
}

void dk_http_team_release(dk_http_team *team)
{
    dk_free(team->threads);
    team->threads = NULL;
    pthread_cond_destroy(&team->arrived);
    pthread_mutex_destroy(&team->lock);
}

void dk_http_team_push(dk_http_team *team, dk_http_exchange *exchange)
{
    exchange->next = NULL;
    pthread_mutex_lock(&team->lock);
    bool stopping = team->stopping;
    if (!stopping) {
        if (team->last != NULL) {
            team->last->next = exchange;
        } else {
            team->first = exchange;
        }
        team->last = exchange;
        pthread_cond_signal(&team->arrived);
    }
    pthread_mutex_unlock(&team->lock);
    if (stopping) {
        dk_http_reply_problem(exchange, 503, "the server is stopping", NULL, NULL);
    }
}
