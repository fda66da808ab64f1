/* The listening socket. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/http/internal.h"

enum { OTHER_FILES = 128, LEAST_CONNECTIONS = 8 };

/* Listens on one address; -1 with errno. */
static int listen_on(const struct addrinfo *address)
{
    int off = 0, on = 1, room = DK_HTTP_SEND_BUFFER;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room); /* accepted sockets inherit it */
    if (address->ai_family == AF_INET6) {                      /* "::" takes IPv4, too */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    if (bind(fd, address->ai_addr, address->ai_addrlen) != 0 ||
        listen(fd, DK_HTTP_BACKLOG) != 0) {
        int code = errno;
        close(fd);
        errno = code;
        return -1;
    }
    return fd;
}

static dk_status fail_listen(const char *host, int port, int code, dk_error *err)
{
    switch (code) {
    case EADDRINUSE:
        return dk_fail(err, DK_IO,
                       "port %d on %s is taken by another program: stop it or choose another "
                       "--port",
                       port, host);
    case EACCES:
        return dk_fail(
            err, DK_IO,
            "port %d on %s may not be used without privileges: choose a --port above "
            "1023",
            port, host);
    case EADDRNOTAVAIL:
        return dk_fail(err, DK_IO,
                       "%s is no address of this machine: --host takes one of its addresses, "
                       "127.0.0.1 for this machine alone, 0.0.0.0 or :: for all",
                       host);
    default:
        return dk_fail(err, DK_IO, "cannot listen on %s, port %d: %s", host, port,
                       strerror(code));
    }
}

static int port_of(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    char service[16] = "";
    if (getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        return 0;
    }
    getnameinfo((struct sockaddr *)&address, size, NULL, 0, service, sizeof service,
                NI_NUMERICSERV);
    int port = 0;
    for (const char *p = service; *p >= '0' && *p <= '9'; p++) {
        port = port * 10 + (*p - '0');
    }
    return port;
}

dk_status dk_http_listen(int *out, int *port, const char *host, int wanted_port, dk_error *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *addresses = NULL;
    char service[16];
    int fd = -1, code = 0;
    if (wanted_port < 0 || wanted_port > 65535) {
        return dk_fail(err, DK_INVALID, "port %d, accepted are 0 to 65535", wanted_port);
    }
    snprintf(service, sizeof service, "%d", wanted_port);
    int found = getaddrinfo(host, service, &hints, &addresses);
    if (found != 0) {
        return dk_fail(err, DK_INVALID,
                       "the host '%s' is not known (%s): expected an address or a name of this "
                       "machine",
                       host, gai_strerror(found));
    }
    for (const struct addrinfo *a = addresses; a != NULL && fd < 0; a = a->ai_next) {
        fd = listen_on(a);
        code = fd < 0 ? errno : 0;
    }
    freeaddrinfo(addresses);
    if (fd < 0) {
        return fail_listen(host, wanted_port, code, err);
    }
    *out = fd;
    *port = port_of(fd);
    return DK_OK;
}

int dk_http_raise_files(int connections, const dk_log *log)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)connections + OTHER_FILES;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
        return connections;
    }
    rlim_t most = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    limit.rlim_cur = most;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        most = limit.rlim_cur;
    }
    if (most >= wanted) {
        return connections;
    }
    int served = (int)most - OTHER_FILES;
    served = served > LEAST_CONNECTIONS ? served : LEAST_CONNECTIONS;
    dk_log_warn(
        log, "http: %d connections instead of %d: the process may open %llu files (ulimit -n)",
        served, connections, (unsigned long long)most);
    return served;
}
