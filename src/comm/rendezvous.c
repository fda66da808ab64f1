/* Where ranks meet: the exchange of a few bytes, and the end. */
#include "comm/rendezvous.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/string.h"
#include "comm/meeting.h"
#include "comm/meeting_socket.h"

enum { LOOK_MS = 1000 };

static int link_count(const dk_rendezvous *r)
{
    return r->rank == 0 ? r->ranks : 1; /* [0] of rank 0 is none */
}

dk_status dk_rendezvous_open(dk_rendezvous **out, const dk_rendezvous_options *options,
                             dk_error *err)
{
    if (options->ranks < 1 || options->ranks > DK_MEETING_MOST_RANKS || options->rank < 0 ||
        options->rank >= options->ranks || options->address == NULL) {
        return dk_fail(err, DK_INVALID,
                       "a meeting of rank %d of %d, expected an address, 1 to %d ranks, and a "
                       "rank below that",
                       options->rank, options->ranks, DK_MEETING_MOST_RANKS);
    }
    dk_rendezvous *r = dk_alloc(sizeof *r);
    r->rank = options->rank;
    r->ranks = options->ranks;
    r->stop_fd = -1;
    r->links = dk_alloc((size_t)r->ranks * sizeof *r->links);
    for (int i = 0; i < r->ranks; i++) {
        r->links[i].fd = -1;
    }
    pthread_mutex_init(&r->sending, NULL);
    dk_status status =
        r->rank == 0 ? dk_meeting_host(r, options, err) : dk_meeting_visit(r, options, err);
    if (status != DK_OK) {
        dk_rendezvous_close(&r);
        return status;
    }
    *out = r;
    return DK_OK;
}

void dk_meeting_tell_gone(dk_rendezvous *r, int rank, const char *why)
{
    pthread_mutex_lock(&r->sending);
    for (int i = 1; i < r->ranks; i++) {
        if (i != rank &&
            !dk_meeting_send_text(&r->links[i], DK_FRAME_GONE, (uint32_t)rank, why) &&
            r->links[i].fd >= 0) {
            shutdown(r->links[i].fd, SHUT_RDWR); /* it sees the end, if nothing else */
        }
    }
    pthread_mutex_unlock(&r->sending);
}

/* What came instead of the data of a rank, in words. */
static const char *instead(const dk_meeting_link *link, dk_link_step step)
{
    if (step == DK_LINK_ENDED) {
        return dk_meeting_end_text(link);
    }
    if (step == DK_LINK_FRAME && link->kind == DK_FRAME_GIVE_UP) {
        return (const char *)link->body;
    }
    if (step == DK_LINK_FRAME && link->kind == DK_FRAME_LEAVE) {
        return "it left";
    }
    return "it sent something else than expected";
}

/* Takes what rank i has sent of an exchange; *missing counts down. */
static dk_status take(dk_rendezvous *r, int i, unsigned char *all, size_t bytes, int *missing,
                      dk_error *err)
{
    dk_meeting_link *link = &r->links[i];
    dk_link_step step = dk_meeting_receive(link, DK_RENDEZVOUS_MOST_BYTES);
    if (step == DK_LINK_WAITS) {
        return DK_OK;
    }
    if (step != DK_LINK_FRAME || link->kind != DK_FRAME_DATA) {
        const char *why = instead(link, step);
        dk_meeting_tell_gone(r, i, why);
        return dk_fail(err, DK_NETWORK, "rank %d is gone: %s", i, why);
    }
    if (link->bytes != bytes) {
        dk_fail(err, DK_INVALID, "rank %d brings %zu bytes, rank 0 %zu", i, link->bytes, bytes);
        dk_meeting_tell_gone(r, 0, "the ranks bring different numbers of bytes");
        return DK_INVALID;
    }
    memcpy(all + (size_t)i * bytes, link->body, bytes);
    (*missing)--;
    return DK_OK;
}

static dk_status name_missing(const bool *has_come, int ranks, dk_error *err)
{
    dk_string names = DK_STRING_EMPTY;
    for (int i = 1; i < ranks; i++) {
        if (!has_come[i]) {
            dk_string_printf(&names, names.length > 0 ? ", %d" : "%d", i);
        }
    }
    dk_status status = dk_fail(err, DK_TIMEOUT,
                               "exchange of the meeting: nothing came in time "
                               "from rank %s",
                               dk_string_text(&names));
    dk_string_release(&names);
    return status;
}

static dk_status collect(dk_rendezvous *r, unsigned char *all, size_t bytes, double deadline_ms,
                         dk_error *err)
{
    bool has_come[DK_MEETING_MOST_RANKS] = {[0] = true};
    struct pollfd polled[DK_MEETING_MOST_RANKS];
    int missing = r->ranks - 1;
    while (missing > 0) {
        for (int i = 1; i < r->ranks; i++) {
            int before = missing;
            if (!has_come[i]) {
                DK_TRY(take(r, i, all, bytes, &missing, err));
                has_come[i] = missing < before;
            }
        }
        int left = dk_meeting_left_ms(deadline_ms, LOOK_MS);
        if (missing > 0 && left == 0) {
            return name_missing(has_come, r->ranks, err);
        }
        for (int i = 0; i < r->ranks; i++) {
            polled[i] =
                (struct pollfd){.fd = has_come[i] ? -1 : r->links[i].fd, .events = POLLIN};
        }
        if (missing > 0) {
            poll(polled, (nfds_t)r->ranks, left);
        }
    }
    return DK_OK;
}

static dk_status exchange_host(dk_rendezvous *r, void *all, size_t bytes, double deadline_ms,
                               dk_error *err)
{
    dk_error reason = {0};
    dk_status status = collect(r, all, bytes, deadline_ms, &reason);
    if (status != DK_OK) {
        if (status == DK_TIMEOUT) {
            dk_meeting_tell_gone(r, 0, reason.message);
        }
        return dk_fail(err, status, "%s", reason.message);
    }
    for (int i = 1; i < r->ranks; i++) {
        if (!dk_meeting_send(&r->links[i], DK_FRAME_DATA, all, (size_t)r->ranks * bytes, NULL,
                             0, deadline_ms)) {
            dk_meeting_tell_gone(r, i, "its connection ended");
            return dk_fail(err, DK_NETWORK, "rank %d is gone: its connection ended", i);
        }
    }
    return DK_OK;
}

static dk_status exchange_guest(dk_rendezvous *r, void *all, const void *mine, size_t bytes,
                                double deadline_ms, dk_error *err)
{
    dk_meeting_link *link = &r->links[0];
    uint32_t gone;
    const char *why;
    if (!dk_meeting_send(link, DK_FRAME_DATA, mine, bytes, NULL, 0, deadline_ms)) {
        return dk_fail(err, DK_NETWORK, "rank 0 is gone: its connection ended");
    }
    size_t most = (size_t)r->ranks * bytes;
    most = most < DK_FRAME_TEXT_BYTES + 4 ? DK_FRAME_TEXT_BYTES + 4 : most;
    dk_link_step step = dk_meeting_await(link, most, deadline_ms + DK_MEETING_SEND_MS);
    if (step == DK_LINK_WAITS) {
        return dk_fail(err, DK_TIMEOUT,
                       "exchange of the meeting: rank 0 did not answer in time");
    }
    if (step == DK_LINK_FRAME && link->kind == DK_FRAME_GONE &&
        dk_meeting_read_text(link, &gone, &why)) {
        return dk_fail(err, DK_NETWORK, "rank %u is gone: %s", gone, why);
    }
    if (step != DK_LINK_FRAME || link->kind != DK_FRAME_DATA ||
        link->bytes != (size_t)r->ranks * bytes) {
        return dk_fail(err, DK_NETWORK, "rank 0 is gone: %s", instead(link, step));
    }
    memcpy(all, link->body, link->bytes);
    return DK_OK;
}

dk_status dk_rendezvous_exchange(dk_rendezvous *r, void *all, const void *mine, size_t bytes,
                                 double deadline_ms, dk_error *err)
{
    if (bytes > DK_RENDEZVOUS_MOST_BYTES || r->is_watched) {
        return dk_fail(err, DK_INVALID,
                       "exchange of the meeting: %zu bytes, expected at most %d, and before it "
                       "is watched",
                       bytes, DK_RENDEZVOUS_MOST_BYTES);
    }
    memmove((unsigned char *)all + (size_t)r->rank * bytes, mine, bytes);
    return r->rank == 0 ? exchange_host(r, all, bytes, deadline_ms, err)
                        : exchange_guest(r, all, mine, bytes, deadline_ms, err);
}

void dk_rendezvous_abandon(dk_rendezvous *r, const char *why)
{
    size_t bytes = strlen(why);
    if (r->rank == 0) {
        dk_meeting_tell_gone(r, 0, why);
        return;
    }
    pthread_mutex_lock(&r->sending);
    if (!dk_meeting_send(&r->links[0], DK_FRAME_GIVE_UP, why,
                         bytes < DK_FRAME_TEXT_BYTES ? bytes : DK_FRAME_TEXT_BYTES, NULL, 0,
                         0) &&
        r->links[0].fd >= 0) {
        shutdown(r->links[0].fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&r->sending);
}

/* Closed over bytes that nobody read, a socket takes its last words with it. */
static void say_goodbye(dk_meeting_link *link)
{
    unsigned char rest[256];
    if (link->fd >= 0 && dk_meeting_send(link, DK_FRAME_LEAVE, NULL, 0, NULL, 0, 0)) {
        shutdown(link->fd, SHUT_WR);
        while (recv(link->fd, rest, sizeof rest, MSG_DONTWAIT) > 0) {
        }
    }
    dk_meeting_link_close(link);
}

void dk_rendezvous_close(dk_rendezvous **rendezvous)
{
    dk_rendezvous *r = *rendezvous;
    if (r == NULL) {
        return;
    }
    dk_rendezvous_end_watch(r);
    for (int i = 0; i < link_count(r); i++) {
        say_goodbye(&r->links[i]);
    }
    pthread_mutex_destroy(&r->sending);
    dk_free(r->links);
    dk_free(r);
    *rendezvous = NULL;
}
