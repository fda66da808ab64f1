/* Introductions as text, and trying which endpoint of one can be reached. */
#include "server/wire/introduction.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/file.h"

enum { TRY_MS = 2000 };

dk_status dk_introduction_make(dk_introduction *out, dk_error *err)
{
    *out = (dk_introduction){0};
    if (zmq_curve_keypair(out->server, out->own) != 0 ||
        zmq_curve_keypair(out->allowed, out->secret) != 0) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "this libzmq has no CURVE, which workers on other hosts need");
    }
    return DK_OK;
}

void dk_introduction_add(dk_introduction *i, const char *endpoint)
{
    if (i->endpoint_count < DK_INTRODUCTION_ENDPOINTS) {
        snprintf(i->endpoints[i->endpoint_count++], DK_INTRODUCTION_ENDPOINT_BYTES, "%s",
                 endpoint);
    }
}

void dk_introduction_write(dk_string *out, const dk_introduction *i, bool with_own)
{
    for (int e = 0; e < i->endpoint_count; e++) {
        dk_string_printf(out, "endpoint=%s\n", i->endpoints[e]);
    }
    dk_string_printf(out, "server=%s\nsecret=%s\n", i->server, i->secret);
    if (with_own) {
        dk_string_printf(out, "own=%s\nallowed=%s\n", i->own, i->allowed);
    }
}

static void take_line(dk_introduction *out, const char *line)
{
    const struct {
        const char *name;
        char *value;
    } keys[] = {{"server=", out->server},
                {"secret=", out->secret},
                {"own=", out->own},
                {"allowed=", out->allowed}};
    if (dk_starts_with(line, "endpoint=")) {
        dk_introduction_add(out, line + strlen("endpoint="));
    }
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        if (dk_starts_with(line, keys[k].name)) {
            snprintf(keys[k].value, DK_INTRODUCTION_KEY_BYTES, "%s",
                     line + strlen(keys[k].name));
        }
    }
}

dk_status dk_introduction_read(dk_introduction *out, const char *text, dk_error *err)
{
    dk_introduction read = {0};
    char *lines = dk_strdup(text), *rest = lines;
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        take_line(&read, line);
    }
    dk_free(lines);
    if (read.endpoint_count == 0 || read.server[0] == '\0' || read.secret[0] == '\0') {
        return dk_fail(err, DK_FORMAT,
                       "how the scheduler is reached was told without an endpoint or without "
                       "keys");
    }
    *out = read;
    return DK_OK;
}

dk_status dk_introduction_load(dk_introduction *out, bool *is_empty, const char *path,
                               dk_error *err)
{
    struct stat info;
    size_t size;
    char *text;
    if (stat(path, &info) != 0) {
        return dk_fail(err, DK_IO, "%s: %s", path, strerror(errno));
    }
    if ((info.st_mode & 077) != 0) {
        return dk_fail(err, DK_DENIED, "%s: others may read the keys, make it mode 0600", path);
    }
    *is_empty = info.st_size == 0;
    if (*is_empty) {
        return DK_OK;
    }
    DK_TRY(dk_file_read(&text, &size, path, DK_INTRODUCTION_BYTES, err));
    dk_status status = dk_introduction_read(out, text, err);
    dk_free(text);
    return status;
}

/* In one write, so that whoever waits for it finds all of it. */
dk_status dk_introduction_save(const dk_introduction *i, const char *path, dk_error *err)
{
    dk_string text = DK_STRING_EMPTY;
    dk_introduction_write(&text, i, true);
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_CREAT, 0600);
    bool written = fd >= 0 && write(fd, text.data, text.length) == (ssize_t)text.length;
    int code = errno;
    if (fd >= 0) {
        close(fd);
    }
    dk_string_release(&text);
    return written ? DK_OK : dk_fail(err, DK_IO, "%s: %s", path, strerror(code));
}

/* Whether a connection comes about; closed at once. */
static bool answers(const struct addrinfo *to)
{
    int code = -1;
    socklen_t size = sizeof code;
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return false;
    }
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    bool connected = connect(fd, to->ai_addr, to->ai_addrlen) == 0;
    if (!connected && errno == EINPROGRESS && poll(&wait, 1, TRY_MS) == 1) {
        connected = getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) == 0 && code == 0;
    }
    close(fd);
    return connected;
}

void dk_introduction_print(char endpoint[DK_INTRODUCTION_ENDPOINT_BYTES], const char *host,
                           const char *port)
{
    bool six = strchr(host, ':') != NULL;
    snprintf(endpoint, DK_INTRODUCTION_ENDPOINT_BYTES, "tcp://%s%.255s%s:%.31s", six ? "[" : "",
             host, six ? "]" : "", port);
}

/* Writes the endpoint with the number that answers. */
static bool find_at(char out[DK_INTRODUCTION_ENDPOINT_BYTES], const char *endpoint)
{
    char host[DK_INTRODUCTION_ENDPOINT_BYTES], number[NI_MAXHOST];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list;
    if (!dk_starts_with(endpoint, "tcp://")) {
        return false;
    }
    snprintf(host, sizeof host, "%s", endpoint + strlen("tcp://"));
    char *colon = strrchr(host, ':'), *begin = host;
    if (colon == NULL) {
        return false;
    }
    *colon = '\0';
    if (host[0] == '[' && colon > host + 1 && colon[-1] == ']') {
        begin++;
        colon[-1] = '\0';
    }
    if (getaddrinfo(begin, colon + 1, &hints, &list) != 0) {
        return false;
    }
    bool found = false;
    for (const struct addrinfo *to = list; to != NULL && !found; to = to->ai_next) {
        found = answers(to) && getnameinfo(to->ai_addr, to->ai_addrlen, number, sizeof number,
                                           NULL, 0, NI_NUMERICHOST) == 0;
    }
    freeaddrinfo(list);
    if (found) {
        dk_introduction_print(out, number, colon + 1);
    }
    return found;
}

dk_status dk_introduction_find(char endpoint[DK_INTRODUCTION_ENDPOINT_BYTES],
                               const dk_introduction *i, dk_error *err)
{
    dk_string tried = DK_STRING_EMPTY;
    for (int e = 0; e < i->endpoint_count; e++) {
        if (find_at(endpoint, i->endpoints[e])) {
            dk_string_release(&tried);
            return DK_OK;
        }
        dk_string_printf(&tried, "%s%s", e > 0 ? ", " : "", i->endpoints[e]);
    }
    dk_status status =
        dk_fail(err, DK_NETWORK, "no scheduler answers at %s", dk_string_text(&tried));
    dk_string_release(&tried);
    return status;
}
