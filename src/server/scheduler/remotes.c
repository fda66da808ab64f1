/* Workers that a launcher started elsewhere: their relays come to a socket of their own, over
   tcp with CURVE, are told when to start a worker, and pass messages on. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/string.h"
#include "server/scheduler/slot_files.h"
#include "server/scheduler/state.h"
#include "server/wire/introduction.h"

enum {
    SILENCE_MS = 10000,
    STALE_MS = 2000, /* four times what a relay says in its silence */
    RIVAL_MS = 5000,
};

/* "host:port", whose port may be "*", in its parts; host in brackets loses them. */
static dk_status take_apart(char host[NI_MAXHOST], char port[NI_MAXSERV], const char *address,
                            dk_error *err)
{
    const char *colon = strrchr(address, ':');
    size_t length = colon != NULL ? (size_t)(colon - address) : 0;
    bool six = length > 2 && address[0] == '[' && address[length - 1] == ']';
    if (length == 0 || length >= NI_MAXHOST || strlen(colon + 1) >= NI_MAXSERV) {
        return dk_fail(err, DK_INVALID,
                       "workers_address is '%s', expected host:port, where either may be *",
                       address);
    }
    snprintf(host, NI_MAXHOST, "%.*s", (int)(six ? length - 2 : length), address + six);
    snprintf(port, NI_MAXSERV, "%s", colon + 1);
    return DK_OK;
}

/* ZeroMQ listens at numbers, not at names. */
static dk_status look_up(char out[NI_MAXHOST], const char *host, dk_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
    if (strcmp(host, "*") == 0) {
        snprintf(out, NI_MAXHOST, "*");
        return DK_OK;
    }
    int code = getaddrinfo(host, NULL, &hints, &list);
    if (code == 0) {
        code = getnameinfo(list->ai_addr, list->ai_addrlen, out, NI_MAXHOST, NULL, 0,
                           NI_NUMERICHOST);
        freeaddrinfo(list);
    }
    return code == 0
               ? DK_OK
               : dk_fail(err, DK_INVALID, "workers_address '%s': %s", host, gai_strerror(code));
}

/* Every address of this host that others may reach. */
static void add_networks(dk_introduction *i, const char *port)
{
    char host[NI_MAXHOST], endpoint[DK_INTRODUCTION_ENDPOINT_BYTES];
    struct ifaddrs *list = NULL;
    if (getifaddrs(&list) != 0) {
        return;
    }
    for (const struct ifaddrs *at = list; at != NULL; at = at->ifa_next) {
        if (at->ifa_addr != NULL && at->ifa_addr->sa_family == AF_INET &&
            getnameinfo(at->ifa_addr, sizeof(struct sockaddr_in), host, sizeof host, NULL, 0,
                        NI_NUMERICHOST) == 0 &&
            !dk_starts_with(host, "127.")) {
            dk_introduction_print(endpoint, host, port);
            dk_introduction_add(i, endpoint);
        }
    }
    freeifaddrs(list);
}

static dk_status listen_at(dk_scheduler *s, const char *endpoint, const dk_introduction *i,
                           dk_error *err)
{
    const dk_link_keys keys = {.secret = i->own, .allowed = i->allowed};
    return dk_link_listen(&s->relays, endpoint, &keys, err);
}

/* The first of a server's schedulers. What is announced is the host as it was named. */
static dk_status listen_anew(dk_scheduler *s, dk_introduction *i, dk_error *err)
{
    char host[NI_MAXHOST], number[NI_MAXHOST], port[NI_MAXSERV];
    char endpoint[DK_INTRODUCTION_ENDPOINT_BYTES];
    DK_TRY(take_apart(host, port, s->setup->workers_address, err));
    DK_TRY(look_up(number, host, err));
    DK_TRY(dk_introduction_make(i, err));
    dk_introduction_print(endpoint, number, port);
    DK_TRY(listen_at(s, endpoint, i, err));
    snprintf(port, sizeof port, "%d", dk_link_port(s->relays));
    if (strcmp(host, "*") == 0) {
        add_networks(i, port);
    } else {
        dk_introduction_print(endpoint, host, port);
        dk_introduction_add(i, endpoint);
    }
    return i->endpoint_count > 0
               ? dk_introduction_save(i, s->setup->introduction, err)
               : dk_fail(err, DK_NETWORK, "this host has no network that others reach it by");
}

/* A server's next one takes the same place, so that relays find it. */
static dk_status listen_again(dk_scheduler *s, const dk_introduction *i, dk_error *err)
{
    char host[NI_MAXHOST], number[NI_MAXHOST], port[NI_MAXSERV];
    char endpoint[DK_INTRODUCTION_ENDPOINT_BYTES];
    DK_TRY(take_apart(host, port, s->setup->workers_address, err));
    DK_TRY(look_up(number, host, err));
    dk_introduction_print(endpoint, number, strrchr(i->endpoints[0], ':') + 1);
    return listen_at(s, endpoint, i, err);
}

dk_status dk_scheduler_open_remotes(dk_scheduler *s, dk_error *err)
{
    dk_introduction i;
    bool is_empty;
    if (s->setup->introduction == NULL) {
        return DK_OK;
    }
    DK_TRY(dk_introduction_load(&i, &is_empty, s->setup->introduction, err));
    DK_TRY(is_empty ? listen_anew(s, &i, err) : listen_again(s, &i, err));
    for (int slot = 1; slot < s->slot_count; slot++) {
        s->slots[slot].relay.link = s->relays;
    }
    return DK_OK;
}

static dk_slot *slot_of(dk_scheduler *s, const dk_link_peer *peer)
{
    for (int i = 0; i < s->slot_count; i++) {
        const dk_link_peer *known = &s->slots[i].relay.peer;
        if (known->size > 0 && known->size == peer->size &&
            memcmp(known->name, peer->name, peer->size) == 0) {
            return &s->slots[i];
        }
    }
    return NULL;
}

static void tell_end(dk_scheduler *s, const dk_link_peer *peer, const char *why)
{
    dk_message message;
    dk_message_pack(&message, "end", "{s:s}", "why", why);
    dk_scheduler_send_to(s, s->relays, peer, &message);
}

static void lose_relay(dk_scheduler *s, dk_slot *slot, const char *why)
{
    slot->relay.peer.size = 0;
    if (slot->state != DK_SLOT_DOWN && !s->ends) {
        dk_scheduler_lose_worker(s, slot, why);
    }
}

void dk_scheduler_send_away(dk_scheduler *s, dk_slot *slot, const char *why)
{
    dk_log_warn(s->setup->log, "%s", why);
    tell_end(s, &slot->relay.peer, why);
    json_decref(slot->ready);
    slot->ready = NULL;
    lose_relay(s, slot, "was sent away");
}

/* Whether a second relay comes for a replica whose own one was heard of a moment ago: the first
   one may have just ended, so that the second waits; if it has not, the second was started for
   the wrong replica. */
static bool is_taken(dk_scheduler *s, dk_slot *slot, const dk_link_peer *peer,
                     const dk_message *message)
{
    double now = dk_now_ms();
    char why[256];
    if (slot->relay.peer.size == 0 || slot_of(s, peer) == slot ||
        now - slot->relay.heard_ms > STALE_MS) {
        return false;
    }
    if (now - slot->relay.rival_ms > STALE_MS) {
        slot->relay.rival_since_ms = now;
    }
    slot->relay.rival_ms = now;
    if (now - slot->relay.rival_since_ms > RIVAL_MS) {
        snprintf(
            why, sizeof why,
            "replica %d is there twice, from %s and from %s: each is started once, see RANK",
            slot->index, slot->relay.host, dk_message_text(message, "host"));
        dk_log_warn(s->setup->log, "%s", why);
        tell_end(s, peer, why);
    }
    return true;
}

/* A relay is there, and says so again and again: also one that came back by another connection,
   of which nobody knows what was lost with the first one. */
static void note_here(dk_scheduler *s, const dk_link_peer *peer, const dk_message *message)
{
    int replica = (int)dk_message_number(message, "replica", -1);
    dk_slot *slot = replica > 0 && replica < s->slot_count ? &s->slots[replica] : NULL;
    if (slot == NULL) {
        dk_log_warn(s->setup->log, "replica %d came, expected are 1 to %d", replica,
                    s->slot_count - 1);
        return;
    }
    if (is_taken(s, slot, peer, message)) {
        return;
    }
    if (slot_of(s, peer) != slot) {
        lose_relay(s, slot, "came back by another connection");
        slot->relay.peer = *peer;
        slot->relay.blind = false;
        snprintf(slot->relay.host, sizeof slot->relay.host, "%s",
                 dk_message_text(message, "host"));
        dk_log_info(s->setup->log, "replica %d has come, from %s", replica, slot->relay.host);
    }
    slot->relay.pid = (int)dk_message_number(message, "pid", 0);
    slot->relay.heard_ms = dk_now_ms();
    slot->relay.patience_ms = SILENCE_MS + dk_message_coming_ms(message);
    dk_message answer;
    dk_message_init(&answer, "here");
    dk_scheduler_send_to(s, s->relays, peer, &answer);
}

/* What cannot be stored is missed when its task is lost. */
static void take_file(dk_scheduler *s, dk_slot *slot, const dk_message *message)
{
    dk_error error;
    dk_message answer;
    if (dk_slot_take_file(slot, message, &error) != DK_OK) {
        dk_log_warn(s->setup->log, "%s", error.message);
    }
    dk_message_pack(&answer, "filed", "{s:I}", "life", slot->life);
    dk_scheduler_send_to(s, s->relays, &slot->relay.peer, &answer);
}

static void take_relayed(dk_scheduler *s, dk_slot *slot, dk_message *message)
{
    const char *type = dk_message_type(message);
    bool is_current = (json_int_t)dk_message_number(message, "life", 0) == slot->life;
    slot->relay.heard_ms = dk_now_ms();
    if (strcmp(type, "leaving") == 0) {
        lose_relay(s, slot, "has left");
    } else if (!is_current || slot->state == DK_SLOT_DOWN) {
        return; /* of a worker that was lost meanwhile */
    } else if (strcmp(type, "ended") == 0) {
        dk_scheduler_lose_worker(s, slot, "ended");
    } else if (strcmp(type, "blind") == 0) {
        dk_scheduler_take_back(s, slot);
    } else if (strcmp(type, "file") == 0) {
        take_file(s, slot, message);
    } else {
        dk_error error;
        if (strcmp(type, "result") == 0 && dk_message_put_out(message, &error) != DK_OK) {
            dk_log_warn(s->setup->log, "%s", error.message); /* a result without frames */
        }
        json_object_del(message->header, "life");
        dk_scheduler_take_worker_message(s, slot, message);
    }
}

void dk_scheduler_read_remotes(dk_scheduler *s)
{
    for (bool received = s->relays != NULL; received;) {
        dk_link_peer peer;
        dk_message message = {.fd = -1};
        dk_error error;
        if (dk_link_receive(s->relays, &peer, &message, &received, &error) != DK_OK) {
            dk_log_warn(s->setup->log, "%s", error.message);
            received = true;
            continue;
        }
        dk_slot *slot = received ? slot_of(s, &peer) : NULL;
        if (received && strcmp(dk_message_type(&message), "here") == 0) {
            note_here(s, &peer, &message);
        } else if (slot != NULL) {
            take_relayed(s, slot, &message);
        }
        dk_message_release(&message);
    }
}

void dk_scheduler_look_at_remotes(dk_scheduler *s)
{
    for (int i = 0; i < s->slot_count; i++) {
        dk_slot *slot = &s->slots[i];
        if (slot->relay.peer.size > 0 &&
            dk_now_ms() - slot->relay.heard_ms > slot->relay.patience_ms) {
            lose_relay(s, slot, "was not heard of: its process or its network is gone");
        }
    }
}

void dk_scheduler_end_remotes(dk_scheduler *s, double until_ms)
{
    int left = 1;
    s->ends = true;
    for (int i = 0; i < s->slot_count; i++) {
        if (s->slots[i].relay.peer.size > 0) {
            dk_slot_ask_to_end(&s->slots[i]);
        }
    }
    while (left > 0 && dk_now_ms() < until_ms) {
        zmq_pollitem_t item = {.socket = s->relays != NULL ? dk_link_socket(s->relays) : NULL,
                               .fd = -1,
                               .events = ZMQ_POLLIN};
        dk_scheduler_read_remotes(s);
        left = 0;
        for (int i = 0; i < s->slot_count; i++) {
            left += s->slots[i].relay.peer.size > 0;
        }
        if (left > 0) {
            zmq_poll(&item, 1, 10);
        }
    }
}
