/* Which addresses belong to everybody. */
#ifndef DK_SERVER_UPLOADS_ADDRESS_H
#define DK_SERVER_UPLOADS_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

/* False for this machine, private networks, link-local, shared (CGNAT), multicast, reserved and
   documentation addresses, for IPv6 also those that embed an IPv4 address, and for every other
   family. */
bool dk_address_is_public(const struct sockaddr *address);

#endif
