/* Sockets of a meeting. A link that is cut without a word is noticed by the kernel: it asks an
   idle peer every second, and gives up what is not acknowledged in UNANSWERED_MS. */
#define _GNU_SOURCE /* accept4, struct ucred */
#include "comm/meeting_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/string.h"

enum {
    IDLE_S = 1, /* of silence before the kernel asks */
    ASK_S = 1,  /* between its questions */
    ASK_TIMES = 4,
    UNANSWERED_MS = 5000,
    CONNECT_MS = 3000, /* for one attempt at one address */
    TAKEN_MS = 3000,   /* for a listener that is just ending */
    TAKEN_LOOK_MS = 20,
    BACKLOG = 128,
    PORT_BYTES = 6,
};
static const char local_prefix[] = "unix:@";

int dk_meeting_left_ms(double deadline_ms, int most)
{
    double left = deadline_ms - dk_now_ms();
    return left <= 0 ? 0 : left >= most ? most : (int)left + 1;
}

static bool is_local(const char *address)
{
    return dk_starts_with(address, local_prefix);
}

static dk_status local_address(struct sockaddr_un *out, socklen_t *size, const char *address,
                               dk_error *err)
{
    const char *name = address + strlen(local_prefix);
    size_t length = strlen(name);
    memset(out, 0, sizeof *out);
    out->sun_family = AF_UNIX;
    if (length == 0 || length >= sizeof out->sun_path) {
        return dk_fail(err, DK_INVALID,
                       "meeting at '%s': the name behind '@' has %zu characters, expected 1 "
                       "to %zu",
                       address, length, sizeof out->sun_path - 1);
    }
    memcpy(out->sun_path + 1, name, length); /* a leading 0: no file */
    *size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    return DK_OK;
}

/* The two halves of "host:port"; a host of colons stands in brackets. */
static dk_status take_apart(char host[NI_MAXHOST], char port[PORT_BYTES], const char *address,
                            dk_error *err)
{
    const char *colon = strrchr(address, ':');
    const char *begin = address, *end = colon;
    bool fits = colon != NULL && colon > address;
    if (fits && address[0] == '[') {
        begin++;
        end--;
        fits = end > begin && *end == ']';
    } else if (fits) {
        fits = memchr(address, ':', (size_t)(colon - address)) == NULL;
    }
    long number = fits ? strtol(colon + 1, NULL, 10) : 0;
    if (!fits || end - begin >= NI_MAXHOST || strlen(colon + 1) >= PORT_BYTES ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1) || number < 1 || number > 65535) {
        return dk_fail(err, DK_INVALID,
                       "'%s' is no address of a meeting, expected host:port, [IPv6]:port or "
                       "unix:@name",
                       address);
    }
    snprintf(host, NI_MAXHOST, "%.*s", (int)(end - begin), begin);
    snprintf(port, PORT_BYTES, "%s", colon + 1);
    return DK_OK;
}

static dk_status look_up(struct addrinfo **out, const char *host, const char *port, int flags,
                         const char *address, dk_error *err)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    int code = getaddrinfo(host, port, &hints, out);
    if (code != 0) {
        return dk_fail(err, code == EAI_AGAIN ? DK_NETWORK : DK_INVALID, "meeting at '%s': %s",
                       address, code == EAI_SYSTEM ? strerror(errno) : gai_strerror(code));
    }
    return DK_OK;
}

static void set(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof value); /* a wish; AF_UNIX has none */
}

static void set_options(int fd)
{
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, IDLE_S);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, ASK_S);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, ASK_TIMES);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, UNANSWERED_MS);
}

static bool is_own_user(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

/* A connection to a port of this host that nobody listens at may meet itself. */
static bool is_itself(int fd)
{
    struct sockaddr_storage own, peer;
    socklen_t own_size = sizeof own, peer_size = sizeof peer;
    memset(&own, 0, sizeof own);
    memset(&peer, 0, sizeof peer);
    return getsockname(fd, (struct sockaddr *)&own, &own_size) == 0 &&
           getpeername(fd, (struct sockaddr *)&peer, &peer_size) == 0 &&
           own.ss_family != AF_UNIX && own_size == peer_size &&
           memcmp(&own, &peer, own_size) == 0;
}

/* 0, or errno. */
static int connect_to(int *out, const struct sockaddr *to, socklen_t size, double deadline_ms)
{
    int code = 0;
    int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return errno;
    }
    set_options(fd);
    if (connect(fd, to, size) != 0) {
        code = errno;
        if (code == EINPROGRESS) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            socklen_t code_size = sizeof code;
            bool ended = poll(&wait, 1, dk_meeting_left_ms(deadline_ms, CONNECT_MS)) == 1;
            code = ETIMEDOUT;
            if (ended && getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &code_size) != 0) {
                code = errno;
            }
        }
    }
    if (code == 0 && is_itself(fd)) {
        code = ECONNREFUSED;
    }
    if (code != 0) {
        close(fd);
        return code;
    }
    *out = fd;
    return 0;
}

static dk_status connect_local(int *out, const char *address, double deadline_ms, dk_error *err)
{
    struct sockaddr_un to;
    socklen_t size = 0;
    int fd;
    DK_TRY(local_address(&to, &size, address, err));
    int code = connect_to(&fd, (const struct sockaddr *)&to, size, deadline_ms);
    if (code != 0) {
        return dk_fail(err, DK_NETWORK, "meeting at '%s': %s", address, strerror(code));
    }
    if (!is_own_user(fd)) {
        close(fd);
        return dk_fail(err, DK_DENIED, "meeting at '%s': a process of another user is there",
                       address);
    }
    *out = fd;
    return DK_OK;
}

dk_status dk_meeting_connect(int *out, const char *address, double deadline_ms, dk_error *err)
{
    char host[NI_MAXHOST], port[PORT_BYTES];
    struct addrinfo *all = NULL;
    int code = ECONNREFUSED;
    if (is_local(address)) {
        return connect_local(out, address, deadline_ms, err);
    }
    DK_TRY(take_apart(host, port, address, err));
    DK_TRY(look_up(&all, host, port, 0, address, err));
    for (struct addrinfo *one = all; one != NULL && code != 0; one = one->ai_next) {
        code = connect_to(out, one->ai_addr, one->ai_addrlen, deadline_ms);
    }
    freeaddrinfo(all);
    return code == 0 ? DK_OK
                     : dk_fail(err, DK_NETWORK, "meeting at '%s': %s", address, strerror(code));
}

/* 0, or errno. */
static int listen_at(int *out, const struct sockaddr *at, socklen_t size, double deadline_ms)
{
    int fd = socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return errno;
    }
    if (at->sa_family != AF_UNIX) {
        set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    }
    double patience = dk_now_ms() + TAKEN_MS;
    double until = deadline_ms < patience ? deadline_ms : patience;
    int code = 0;
    while (bind(fd, at, size) != 0 && (code = errno) == EADDRINUSE && dk_now_ms() < until) {
        poll(NULL, 0, TAKEN_LOOK_MS);
        code = 0;
    }
    if (code == 0 && listen(fd, BACKLOG) != 0) {
        code = errno;
    }
    if (code != 0) {
        close(fd);
        return code;
    }
    *out = fd;
    return 0;
}

/* Some systems give a host's own name a loopback address: others do not come to that one. */
static bool is_loopback_by_name(const struct addrinfo *at, const char *host)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)at->ai_addr;
    struct in_addr number;
    return at->ai_family == AF_INET && ntohl(v4->sin_addr.s_addr) >> 24 == 127 &&
           inet_pton(AF_INET, host, &number) != 1 && !dk_starts_with(host, "localhost");
}

static dk_status listen_by_name(int *out, const char *address, double deadline_ms,
                                dk_error *err)
{
    char host[NI_MAXHOST], port[PORT_BYTES];
    struct addrinfo *all = NULL;
    int code = EADDRNOTAVAIL;
    DK_TRY(take_apart(host, port, address, err));
    DK_TRY(look_up(&all, host, port, 0, address, err));
    if (is_loopback_by_name(all, host)) {
        freeaddrinfo(all);
        DK_TRY(look_up(&all, NULL, port, AI_PASSIVE, address, err));
    }
    for (struct addrinfo *one = all; one != NULL && code != 0; one = one->ai_next) {
        code = listen_at(out, one->ai_addr, one->ai_addrlen, deadline_ms);
    }
    freeaddrinfo(all);
    if (code == EADDRNOTAVAIL) {
        return dk_fail(err, DK_INVALID,
                       "meeting at '%s': that is no address of this host, expected one of the "
                       "host of rank 0",
                       address);
    }
    return code == 0 ? DK_OK
                     : dk_fail(err, DK_NETWORK, "meeting at '%s': rank 0 cannot listen: %s",
                               address, strerror(code));
}

dk_status dk_meeting_listen(int *out, const char *address, double deadline_ms, dk_error *err)
{
    struct sockaddr_un at;
    socklen_t size = 0;
    if (!is_local(address)) {
        return listen_by_name(out, address, deadline_ms, err);
    }
    DK_TRY(local_address(&at, &size, address, err));
    int code = listen_at(out, (const struct sockaddr *)&at, size, deadline_ms);
    return code == 0 ? DK_OK
                     : dk_fail(err, DK_NETWORK, "meeting at '%s': rank 0 cannot listen: %s",
                               address, strerror(code));
}

int dk_meeting_accept(int listener)
{
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    int fd = accept4(listener, (struct sockaddr *)&from, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        return -1;
    }
    if (from.ss_family == AF_UNIX && !is_own_user(fd)) {
        close(fd);
        return -1;
    }
    set_options(fd);
    return fd;
}
