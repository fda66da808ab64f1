/* The special-purpose registries of IANA, as far as they are not global. */
#include "server/uploads/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

typedef struct network4 {
    uint32_t address;
    int bits;
} network4;

#define V4(a, b, c, d) ((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d))

static const network4 special4[] = {
    {V4(0, 0, 0, 0), 8},       /* this network */
    {V4(10, 0, 0, 0), 8},      /* private */
    {V4(100, 64, 0, 0), 10},   /* shared: CGNAT */
    {V4(127, 0, 0, 0), 8},     /* this machine */
    {V4(169, 254, 0, 0), 16},  /* link-local: also the clouds' metadata */
    {V4(172, 16, 0, 0), 12},   /* private */
    {V4(192, 0, 0, 0), 24},    /* protocol assignments */
    {V4(192, 0, 2, 0), 24},    /* documentation */
    {V4(192, 88, 99, 0), 24},  /* 6to4 relays */
    {V4(192, 168, 0, 0), 16},  /* private */
    {V4(198, 18, 0, 0), 15},   /* benchmarks */
    {V4(198, 51, 100, 0), 24}, /* documentation */
    {V4(203, 0, 113, 0), 24},  /* documentation */
    {V4(224, 0, 0, 0), 3},     /* multicast, reserved, broadcast */
};

typedef struct network6 {
    uint8_t address[4]; /* longer prefixes do not occur */
    int bits;
} network6;

/* Inside of 2000::/3; all outside of it is refused. */
static const network6 special6[] = {
    {{0x20, 0x01, 0x00, 0x00}, 23}, /* Teredo and other protocols */
    {{0x20, 0x01, 0x0d, 0xb8}, 32}, /* documentation */
    {{0x20, 0x02, 0x00, 0x00}, 16}, /* 6to4 */
    {{0x3f, 0xff, 0x00, 0x00}, 20}, /* documentation */
};

static uint32_t word(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
           bytes[3];
}

static bool is_inside(uint32_t address, uint32_t network, int bits)
{
    return (address ^ network) >> (32 - bits) == 0;
}

static bool is_public4(uint32_t address)
{
    for (size_t i = 0; i < sizeof special4 / sizeof *special4; i++) {
        if (is_inside(address, special4[i].address, special4[i].bits)) {
            return false;
        }
    }
    return true;
}

static bool is_public6(const uint8_t address[16])
{
    uint32_t first = word(address);
    if (!is_inside(first, 0x20000000, 3)) {
        return false;
    }
    for (size_t i = 0; i < sizeof special6 / sizeof *special6; i++) {
        if (is_inside(first, word(special6[i].address), special6[i].bits)) {
            return false;
        }
    }
    return true;
}

bool dk_address_is_public(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof in);
        return is_public4(ntohl(in.sin_addr.s_addr));
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 in;
        memcpy(&in, address, sizeof in);
        return is_public6(in.sin6_addr.s6_addr);
    }
    return false;
}
