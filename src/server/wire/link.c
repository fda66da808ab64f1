/* ZeroMQ sockets that carry messages. */
#include "server/wire/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "server/wire/zap.h"

enum { HIGH_WATER = 100000, MAX_FRAMES = 1 + 1 + DK_MESSAGE_MAX_BLOBS };

struct dk_link {
    void *context, *socket;
    bool listens;
    dk_zap *zap; /* who may come in; NULL: everybody who reaches the socket */
};

static dk_status fail_zmq(dk_error *err, const char *what, const char *endpoint)
{
    int code = zmq_errno();
    return dk_fail(err, code == EADDRINUSE ? DK_BUSY : DK_NETWORK, "%s %s: %s", what, endpoint,
                   zmq_strerror(code));
}

/* ipc://folder/name: nobody else may enter the folder. */
static dk_status check_ipc(const char *endpoint, dk_error *err)
{
    const char *path = endpoint + strlen("ipc://"), *slash = strrchr(path, '/');
    if (path[0] != '/' || slash == path) {
        return dk_fail(err, DK_INVALID, "%s: accepted is ipc:///folder/name", endpoint);
    }
    char *folder = dk_strndup(path, (size_t)(slash - path));
    struct stat info;
    dk_status status = DK_OK;
    if (stat(folder, &info) != 0 || !S_ISDIR(info.st_mode)) {
        status = dk_fail(err, DK_NOT_FOUND, "%s: there is no folder %s", endpoint, folder);
    } else if ((info.st_mode & 077) != 0 || info.st_uid != geteuid()) {
        status = dk_fail(err, DK_INVALID,
                         "%s: others may enter the folder %s, accepted is one of mode 0700 "
                         "that belongs to this user",
                         endpoint, folder);
    }
    dk_free(folder);
    return status;
}

dk_status dk_link_check(const char *endpoint, const dk_link_keys *keys, dk_error *err)
{
    if (dk_starts_with(endpoint, "ipc://")) {
        return check_ipc(endpoint, err);
    }
    if (!dk_starts_with(endpoint, "tcp://")) {
        return dk_fail(err, DK_INVALID, "endpoint '%s': accepted are ipc:// and tcp://",
                       endpoint);
    }
    return keys != NULL && keys->secret != NULL
               ? DK_OK
               : dk_fail(err, DK_INVALID, "%s: tcp needs CURVE keys, see --curve-keys",
                         endpoint);
}

static dk_status open_link(dk_link **out, int type, const char *endpoint, dk_error *err)
{
    int water = HIGH_WATER, linger = 0, six = strchr(endpoint, '[') != NULL;
    int64_t longest = (int64_t)DK_MESSAGE_BLOB_BYTES;
    dk_link *link = dk_alloc(sizeof *link);
    link->listens = type == ZMQ_ROUTER;
    link->context = zmq_ctx_new();
    link->socket = link->context != NULL ? zmq_socket(link->context, type) : NULL;
    if (link->socket == NULL) {
        dk_link_close(&link);
        return dk_fail(err, DK_IO, "a ZeroMQ socket: %s", zmq_strerror(zmq_errno()));
    }
    zmq_setsockopt(link->socket, ZMQ_SNDHWM, &water, sizeof water);
    zmq_setsockopt(link->socket, ZMQ_RCVHWM, &water, sizeof water);
    zmq_setsockopt(link->socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(link->socket, ZMQ_MAXMSGSIZE, &longest, sizeof longest);
    zmq_setsockopt(link->socket, ZMQ_IPV6, &six, sizeof six);
    *out = link;
    return DK_OK;
}

static bool is_key(const char *text)
{
    uint8_t bytes[32];
    return text != NULL && strlen(text) == 40 && zmq_z85_decode(bytes, text) != NULL;
}

static dk_status set_listener_keys(dk_link *link, const dk_link_keys *keys, dk_error *err)
{
    int yes = 1;
    if (!is_key(keys->secret) ||
        zmq_setsockopt(link->socket, ZMQ_CURVE_SERVER, &yes, sizeof yes) != 0 ||
        zmq_setsockopt(link->socket, ZMQ_CURVE_SECRETKEY, keys->secret, 41) != 0) {
        return dk_fail(err, DK_INVALID, "the CURVE secret key is none: 40 characters of Z85");
    }
    if (keys->allowed == NULL) {
        return dk_fail(err, DK_INVALID, "CURVE: no allowed= keys: nobody could come in");
    }
    zmq_setsockopt(link->socket, ZMQ_ZAP_DOMAIN, "darkroom", 8);
    return dk_zap_start(&link->zap, link->context, keys->allowed, err);
}

static dk_status set_client_keys(dk_link *link, const dk_link_keys *keys, dk_error *err)
{
    char public_key[41];
    if (!is_key(keys->server_public) || !is_key(keys->secret) ||
        zmq_curve_public(public_key, keys->secret) != 0 ||
        zmq_setsockopt(link->socket, ZMQ_CURVE_SERVERKEY, keys->server_public, 41) != 0 ||
        zmq_setsockopt(link->socket, ZMQ_CURVE_PUBLICKEY, public_key, 41) != 0 ||
        zmq_setsockopt(link->socket, ZMQ_CURVE_SECRETKEY, keys->secret, 41) != 0) {
        return dk_fail(err, DK_INVALID,
                       "CURVE: needed are secret= and server=, each 40 characters of Z85");
    }
    return DK_OK;
}

dk_status dk_link_listen(dk_link **out, const char *endpoint, const dk_link_keys *keys,
                         dk_error *err)
{
    dk_link *link;
    DK_TRY(dk_link_check(endpoint, keys, err));
    DK_TRY(open_link(&link, ZMQ_ROUTER, endpoint, err));
    dk_status status = DK_OK;
    if (keys != NULL && keys->secret != NULL) {
        status = set_listener_keys(link, keys, err);
    }
    if (status == DK_OK && zmq_bind(link->socket, endpoint) != 0) {
        status = fail_zmq(err, "listening on", endpoint);
    }
    if (status != DK_OK) {
        dk_link_close(&link);
        return status;
    }
    *out = link;
    return DK_OK;
}

dk_status dk_link_connect(dk_link **out, const char *endpoint, const dk_link_keys *keys,
                          dk_error *err)
{
    dk_link *link;
    DK_TRY(dk_link_check(endpoint, keys, err));
    DK_TRY(open_link(&link, ZMQ_DEALER, endpoint, err));
    dk_status status = DK_OK;
    if (keys != NULL && keys->secret != NULL) {
        status = set_client_keys(link, keys, err);
    }
    if (status == DK_OK && zmq_connect(link->socket, endpoint) != 0) {
        status = fail_zmq(err, "connecting to", endpoint);
    }
    if (status != DK_OK) {
        dk_link_close(&link);
        return status;
    }
    *out = link;
    return DK_OK;
}

int dk_link_port(const dk_link *link)
{
    char endpoint[256] = "";
    size_t size = sizeof endpoint;
    const char *colon = zmq_getsockopt(link->socket, ZMQ_LAST_ENDPOINT, endpoint, &size) == 0
                            ? strrchr(endpoint, ':')
                            : NULL;
    return colon != NULL ? (int)strtol(colon + 1, NULL, 10) : 0;
}

void dk_link_close(dk_link **link)
{
    if (*link != NULL) {
        dk_link *l = *link;
        if (l->socket != NULL) {
            zmq_close(l->socket);
        }
        dk_zap_stop(&l->zap);
        if (l->context != NULL) {
            zmq_ctx_term(l->context);
        }
        dk_free(l);
        *link = NULL;
    }
}

void dk_link_finish(dk_link **link, int ms)
{
    if (*link != NULL) {
        zmq_setsockopt((*link)->socket, ZMQ_LINGER, &ms, sizeof ms);
        dk_link_close(link);
    }
}

void *dk_link_socket(const dk_link *link)
{
    return link->socket;
}

static bool send_frame(dk_link *link, const void *data, size_t size, bool more)
{
    return zmq_send(link->socket, data, size, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) >= 0;
}

dk_status dk_link_send(dk_link *link, const dk_link_peer *peer, const dk_message *message,
                       dk_error *err)
{
    char *text;
    size_t size;
    DK_TRY(dk_message_encode(message, &text, &size, err));
    int blobs = message->blob_count;
    bool sent = peer == NULL || send_frame(link, peer->name, peer->size, true);
    sent = sent && send_frame(link, text, size, blobs > 0);
    for (int i = 0; i < blobs && sent; i++) {
        sent = send_frame(link, message->blobs[i].data, message->blobs[i].size, i + 1 < blobs);
    }
    dk_free(text);
    if (!sent && zmq_errno() != EHOSTUNREACH) {
        return dk_fail(err, zmq_errno() == EAGAIN ? DK_BUSY : DK_NETWORK,
                       "sending to another process: %s", zmq_strerror(zmq_errno()));
    }
    return DK_OK;
}

/* All frames of the next message, into frames[*count]; surplus ones are read and dropped. */
static bool receive_frames(dk_link *link, zmq_msg_t frames[MAX_FRAMES], int *count,
                           bool *surplus)
{
    int more = 1;
    *count = 0;
    *surplus = false;
    while (more != 0) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, link->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&frame);
            return *count > 0;
        }
        more = zmq_msg_more(&frame);
        if (*count < MAX_FRAMES) {
            zmq_msg_init(&frames[*count]);
            zmq_msg_move(&frames[(*count)++], &frame);
        } else {
            *surplus = true;
        }
        zmq_msg_close(&frame);
    }
    return true;
}

static dk_status read_message(dk_message *out, zmq_msg_t *frames, int count, dk_error *err)
{
    uint64_t sizes[DK_MESSAGE_MAX_BLOBS];
    int blobs;
    if (count < 1) {
        return dk_fail(err, DK_FORMAT, "message: no header");
    }
    DK_TRY(dk_message_decode(out, zmq_msg_data(&frames[0]), zmq_msg_size(&frames[0]), sizes,
                             &blobs, err));
    bool right = blobs == count - 1;
    for (int i = 0; i < blobs && right; i++) {
        right = sizes[i] == zmq_msg_size(&frames[1 + i]);
    }
    for (int i = 0; i < blobs && right; i++) {
        void *copy = dk_alloc(sizes[i] + 1);
        memcpy(copy, zmq_msg_data(&frames[1 + i]), sizes[i]);
        dk_message_add_blob(out, copy, sizes[i]);
    }
    if (!right) {
        dk_message_release(out);
        return dk_fail(err, DK_FORMAT,
                       "message: its binary parts are not what its header says");
    }
    return DK_OK;
}

dk_status dk_link_receive(dk_link *link, dk_link_peer *peer, dk_message *out, bool *received,
                          dk_error *err)
{
    zmq_msg_t frames[MAX_FRAMES];
    int count;
    bool surplus;
    *received = false;
    if (!receive_frames(link, frames, &count, &surplus)) {
        return DK_OK;
    }
    int first = link->listens ? 1 : 0;
    dk_status status = DK_OK;
    if (link->listens && zmq_msg_size(&frames[0]) > DK_LINK_PEER_BYTES) {
        status = dk_fail(err, DK_FORMAT, "message: a peer's name is too long");
    } else if (link->listens && peer != NULL) {
        peer->size = zmq_msg_size(&frames[0]);
        memcpy(peer->name, zmq_msg_data(&frames[0]), peer->size);
    }
    if (status == DK_OK) {
        status = surplus ? dk_fail(err, DK_FORMAT, "message: more than %d frames", MAX_FRAMES)
                         : read_message(out, frames + first, count - first, err);
    }
    for (int i = 0; i < count; i++) {
        zmq_msg_close(&frames[i]);
    }
    *received = status == DK_OK;
    return status;
}

dk_status dk_link_keys_read(dk_link_keys *out, char **text, const char *path, dk_error *err)
{
    enum { MOST = 64 * 1024 };
    struct stat info;
    size_t size;
    if (stat(path, &info) == 0 && (info.st_mode & 077) != 0) {
        return dk_fail(err, DK_DENIED, "%s: others may read the keys, make it mode 0600", path);
    }
    char *lines;
    DK_TRY(dk_file_read(&lines, &size, path, MOST, err));
    dk_link_keys keys = {0};
    const struct {
        const char *name;
        const char **value;
    } known[] = {{"secret=", &keys.secret},
                 {"server=", &keys.server_public},
                 {"allowed=", &keys.allowed}};
    char *rest = lines;
    for (char *line = strsep(&rest, "\r\n"); line != NULL; line = strsep(&rest, "\r\n")) {
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            if (dk_starts_with(line, known[i].name)) {
                *known[i].value = line + strlen(known[i].name);
            }
        }
    }
    if (keys.secret == NULL) {
        dk_free(lines);
        return dk_fail(err, DK_FORMAT, "%s: no line secret=…, expected 40 characters of Z85",
                       path);
    }
    *out = keys;
    *text = lines;
    return DK_OK;
}
