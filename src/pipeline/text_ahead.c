/* The thread that encodes prompts ahead: a list of texts, the first of which it works on. */
#include "pipeline/text_ahead.h"

#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "pipeline/text_encoding.h"

struct dk_text_ahead {
    const dk_pipeline *pipeline;
    dk_nn *nn;
    dk_embedding_cache *cache;
    const dk_log *log;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    atomic_bool leave; /* the wish that nn is left alone, see pause */
    /* under the lock: */
    char *waiting[DK_TEXT_AHEAD_MOST]; /* [count], owned, the next one first */
    int count;
    int pauses;
    bool stop;
};

static dk_status encode(dk_text_ahead *a, const char *text, dk_error *err)
{
    dk_tokens tokens = {0};
    dk_embedding_claim *claim = NULL;
    DK_TRY(dk_text_tokenize(a->pipeline, "prompt", text, &tokens, err));
    int64_t width = dk_t5_encoder_config(a->pipeline->text_encoder)->d_model;
    float *values = dk_embedding_cache_claim(a->cache, tokens.ids, (int64_t)tokens.count, width,
                                             NULL, &claim);
    dk_status status = DK_OK;
    if (claim != NULL) {
        status = dk_text_forward(a->nn, a->pipeline->text_encoder, &tokens, &values, err);
        dk_embedding_cache_settle(a->cache, &claim, values);
    }
    dk_free(values);
    dk_tokens_release(&tokens);
    return status;
}

static void drop_first(dk_text_ahead *a)
{
    dk_free(a->waiting[0]);
    memmove(a->waiting, a->waiting + 1, (size_t)--a->count * sizeof *a->waiting);
}

/* With the lock held, which is let go while it computes. Additions go behind the first text,
   which nobody else takes away. */
static void encode_first(dk_text_ahead *a)
{
    dk_error error;
    const char *text = a->waiting[0];
    atomic_store(&a->leave, false);
    pthread_mutex_unlock(&a->lock);
    dk_status status = encode(a, text, &error);
    pthread_mutex_lock(&a->lock);
    if (status != DK_OK && status != DK_CANCELLED) {
        dk_log_warn(a->log, "a prompt could not be encoded ahead: %s", error.message);
    }
    if (status != DK_CANCELLED) {
        drop_first(a);
    }
}

static void *run(void *argument)
{
    dk_text_ahead *a = argument;
    pthread_mutex_lock(&a->lock);
    while (!a->stop) {
        if (a->count == 0 || a->pauses > 0) {
            pthread_cond_wait(&a->changed, &a->lock);
        } else {
            encode_first(a);
        }
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

dk_status dk_text_ahead_create(dk_text_ahead **out, const dk_pipeline *pipeline, dk_nn *nn,
                               dk_embedding_cache *cache, const dk_log *log, dk_error *err)
{
    dk_text_ahead *a = dk_alloc(sizeof *a);
    a->pipeline = pipeline;
    a->nn = nn;
    a->cache = cache;
    a->log = log;
    nn->own_cancel = &a->leave;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    if (pthread_create(&a->thread, NULL, run, a) != 0) {
        pthread_cond_destroy(&a->changed);
        pthread_mutex_destroy(&a->lock);
        dk_free(a);
        return dk_fail(err, DK_MEMORY, "the thread that encodes prompts does not start");
    }
    *out = a;
    return DK_OK;
}

void dk_text_ahead_destroy(dk_text_ahead **ahead)
{
    dk_text_ahead *a = *ahead;
    if (a == NULL) {
        return;
    }
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    atomic_store(&a->leave, true);
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL);
    while (a->count > 0) {
        drop_first(a);
    }
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    dk_free(a);
    *ahead = NULL;
}

void dk_text_ahead_add(dk_text_ahead *a, const char *prompt)
{
    bool new = strnlen(prompt, DK_TEXT_AHEAD_BYTES) < DK_TEXT_AHEAD_BYTES;
    pthread_mutex_lock(&a->lock);
    for (int i = 0; i < a->count; i++) {
        new = new &&strcmp(a->waiting[i], prompt) != 0;
    }
    if (new && a->count < DK_TEXT_AHEAD_MOST) {
        a->waiting[a->count++] = dk_strdup(prompt);
        pthread_cond_signal(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
}

void dk_text_ahead_pause(dk_text_ahead *a)
{
    if (a != NULL) {
        pthread_mutex_lock(&a->lock);
        a->pauses++;
        atomic_store(&a->leave, true);
        pthread_mutex_unlock(&a->lock);
    }
}

void dk_text_ahead_go_on(dk_text_ahead *a)
{
    if (a != NULL) {
        pthread_mutex_lock(&a->lock);
        a->pauses--;
        pthread_cond_signal(&a->changed);
        pthread_mutex_unlock(&a->lock);
    }
}
