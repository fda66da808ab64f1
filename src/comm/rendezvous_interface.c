/* Which of this host's network interfaces a meeting's connections use. */
#define _DEFAULT_SOURCE /* IFF_LOOPBACK */
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "comm/meeting.h"

/* The address of this end; false: it has none of the internet's. A socket for both kinds shows
   the older kind inside the newer. */
static bool own_address(struct sockaddr_storage *out, int fd)
{
    socklen_t size = sizeof *out;
    if (fd < 0 || getsockname(fd, (struct sockaddr *)out, &size) != 0) {
        return false;
    }
    struct sockaddr_in6 six;
    memcpy(&six, out, sizeof six);
    if (out->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six.sin6_addr)) {
        struct sockaddr_in four = {.sin_family = AF_INET};
        memcpy(&four.sin_addr, &six.sin6_addr.s6_addr[12], sizeof four.sin_addr);
        memcpy(out, &four, sizeof four);
    }
    return out->ss_family == AF_INET || out->ss_family == AF_INET6;
}

static bool is_same(const struct sockaddr_storage *a, const struct sockaddr *b)
{
    if (b == NULL || a->ss_family != b->sa_family) {
        return false;
    }
    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *x = (const struct sockaddr_in *)a;
        const struct sockaddr_in *y = (const struct sockaddr_in *)(const void *)b;
        return x->sin_addr.s_addr == y->sin_addr.s_addr;
    }
    const struct sockaddr_in6 *x = (const struct sockaddr_in6 *)a;
    const struct sockaddr_in6 *y = (const struct sockaddr_in6 *)(const void *)b;
    return memcmp(&x->sin6_addr, &y->sin6_addr, sizeof x->sin6_addr) == 0;
}

bool dk_rendezvous_interface(const dk_rendezvous *r, char *out, size_t bytes)
{
    struct ifaddrs *all;
    bool found = false;
    if (getifaddrs(&all) != 0) {
        return false;
    }
    for (int i = 0; i < r->ranks && !found; i++) {
        struct sockaddr_storage own;
        bool known = own_address(&own, r->links[i].fd);
        for (const struct ifaddrs *at = all; known && at != NULL && !found; at = at->ifa_next) {
            found = is_same(&own, at->ifa_addr) && (at->ifa_flags & IFF_LOOPBACK) == 0 &&
                    strlen(at->ifa_name) < bytes;
            if (found) {
                snprintf(out, bytes, "%s", at->ifa_name);
            }
        }
    }
    freeifaddrs(all);
    return found;
}
