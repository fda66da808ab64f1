/* The thread that answers libzmq's questions about keys. */
#include "server/wire/zap.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <zmq.h>

#include "base/alloc.h"

enum { FRAMES = 7, FRAME_BYTES = 256, KEY_BYTES = 32, KEY_TEXT = 41 };

struct dk_zap {
    void *socket, *stop, *stopped; /* REP; the two ends of a pair that ends the thread */
    char *allowed;
    pthread_t thread;
};

/* One question: frames version, request id, domain, address, identity, mechanism, key. */
typedef struct question {
    char frames[FRAMES][FRAME_BYTES];
    int sizes[FRAMES], count;
} question;

static void receive(void *socket, question *q)
{
    int more = 1;
    size_t size = sizeof more;
    *q = (question){0};
    while (more != 0) {
        char rest[FRAME_BYTES];
        char *to = q->count < FRAMES ? q->frames[q->count] : rest;
        int got = zmq_recv(socket, to, FRAME_BYTES, 0);
        if (q->count < FRAMES) {
            q->sizes[q->count] = got > FRAME_BYTES ? FRAME_BYTES : got;
        }
        q->count++;
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size);
    }
}

static bool is_allowed(const char *allowed, const question *q)
{
    char key[KEY_TEXT];
    if (q->count != FRAMES || q->sizes[5] != 5 || memcmp(q->frames[5], "CURVE", 5) != 0 ||
        q->sizes[6] != KEY_BYTES ||
        zmq_z85_encode(key, (const uint8_t *)q->frames[6], KEY_BYTES) == NULL) {
        return false;
    }
    for (const char *at = allowed; *at != '\0';) {
        size_t length = strcspn(at, " ");
        if (length == KEY_TEXT - 1 && memcmp(at, key, length) == 0) {
            return true;
        }
        at += length;
        at += strspn(at, " ");
    }
    return false;
}

static void answer(void *socket, const question *q, bool yes)
{
    const char *parts[] = {NULL, NULL, yes ? "200" : "400", yes ? "" : "unknown key", "", ""};
    zmq_send(socket, q->frames[0], (size_t)q->sizes[0], ZMQ_SNDMORE);
    zmq_send(socket, q->frames[1], (size_t)q->sizes[1], ZMQ_SNDMORE);
    for (int i = 2; i < 6; i++) {
        zmq_send(socket, parts[i], strlen(parts[i]), i < 5 ? ZMQ_SNDMORE : 0);
    }
}

static void *run(void *argument)
{
    dk_zap *zap = argument;
    zmq_pollitem_t items[] = {{.socket = zap->socket, .events = ZMQ_POLLIN},
                              {.socket = zap->stopped, .events = ZMQ_POLLIN}};
    while (zmq_poll(items, 2, -1) >= 0 && (items[1].revents & ZMQ_POLLIN) == 0) {
        question q;
        receive(zap->socket, &q);
        answer(zap->socket, &q, is_allowed(zap->allowed, &q));
    }
    return NULL;
}

dk_status dk_zap_start(dk_zap **out, void *context, const char *allowed, dk_error *err)
{
    dk_zap *zap = dk_alloc(sizeof *zap);
    zap->allowed = dk_strdup(allowed);
    zap->socket = zmq_socket(context, ZMQ_REP);
    zap->stop = zmq_socket(context, ZMQ_PAIR);
    zap->stopped = zmq_socket(context, ZMQ_PAIR);
    if (zmq_bind(zap->socket, "inproc://zeromq.zap.01") != 0 ||
        zmq_bind(zap->stopped, "inproc://darkroom.zap.stop") != 0 ||
        zmq_connect(zap->stop, "inproc://darkroom.zap.stop") != 0 ||
        pthread_create(&zap->thread, NULL, run, zap) != 0) {
        zmq_close(zap->socket);
        zmq_close(zap->stop);
        zmq_close(zap->stopped);
        dk_free(zap->allowed);
        dk_free(zap);
        return dk_fail(err, DK_INTERNAL, "CURVE: the key checker does not start");
    }
    *out = zap;
    return DK_OK;
}

void dk_zap_stop(dk_zap **zap)
{
    if (*zap != NULL) {
        dk_zap *z = *zap;
        zmq_send(z->stop, "", 0, 0);
        pthread_join(z->thread, NULL);
        zmq_close(z->socket);
        zmq_close(z->stop);
        zmq_close(z->stopped);
        dk_free(z->allowed);
        dk_free(z);
        *zap = NULL;
    }
}
