/* Rank 0 waits for all others. Who connects is a stranger until its hello has come whole and is
   right; one that is slow, or says something else, is dropped and harms nobody. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/string.h"
#include "comm/meeting.h"
#include "comm/meeting_socket.h"

enum {
    STRANGERS = 64,     /* at once; one more pushes out the oldest */
    STRANGER_MS = 2000, /* for its hello */
    LOOK_MS = 200,
};

typedef struct stranger {
    int fd; /* -1: free */
    size_t got;
    double since_ms;
    unsigned char bytes[DK_MEETING_HELLO_BYTES];
} stranger;

typedef struct host {
    dk_rendezvous *r;
    unsigned char own[DK_MEETING_HELLO_BYTES];
    int listener;
    int wrong_keys; /* how many came with another one, */
    int wrong_rank; /* and what the last of them called itself */
    stranger strangers[STRANGERS];
} host;

static void drop(stranger *s)
{
    if (s->fd >= 0) {
        close(s->fd);
    }
    s->fd = -1;
}

static void refuse(stranger *s, dk_status status, const char *why)
{
    dk_meeting_link link = {.fd = s->fd};
    (void)dk_meeting_send_text(&link, DK_FRAME_REFUSED, (uint32_t)status, why);
    drop(s);
}

static bool same_key(const unsigned char *a, const unsigned char *b)
{
    unsigned char other = 0; /* takes as long for any two */
    for (int i = 0; i < DK_MEETING_KEY_BYTES; i++) {
        other = (unsigned char)(other | (a[i] ^ b[i]));
    }
    return other == 0;
}

/* A rank that is there already may have ended, and come again. */
static bool is_there(dk_meeting_link *link)
{
    if (link->fd >= 0 && dk_meeting_receive(link, 0) != DK_LINK_WAITS) {
        dk_meeting_link_close(link); /* a rank says nothing before it is welcomed */
    }
    return link->fd >= 0;
}

/* The hello has come whole. A failure ends the meeting. */
static dk_status admit(host *h, stranger *s, dk_error *err)
{
    dk_rendezvous *r = h->r;
    dk_meeting_hello own = dk_meeting_hello_read(h->own),
                     hello = dk_meeting_hello_read(s->bytes);
    char why[256];
    if (hello.version != own.version) {
        snprintf(why, sizeof why, "its version of the meeting is %u, expected %u",
                 hello.version, own.version);
        refuse(s, DK_INVALID, why);
        return DK_OK;
    }
    if (!same_key(hello.key, own.key)) {
        h->wrong_keys++;
        h->wrong_rank = hello.rank < own.ranks ? (int)hello.rank : -1;
        refuse(s, DK_INVALID, "its key is not that of the meeting");
        return DK_OK;
    }
    if (hello.ranks != own.ranks) {
        snprintf(why, sizeof why, "rank %u expects %u ranks, rank 0 %u", hello.rank,
                 hello.ranks, own.ranks);
    } else if (hello.rank >= own.ranks || hello.rank == 0) {
        snprintf(why, sizeof why, "rank %u comes to rank 0, expected 1 to %u", hello.rank,
                 own.ranks - 1);
    } else if (is_there(&r->links[hello.rank])) {
        snprintf(why, sizeof why, "rank %u is there twice", hello.rank);
    } else {
        r->links[hello.rank] = (dk_meeting_link){.fd = s->fd};
        s->fd = -1;
        return DK_OK;
    }
    refuse(s, DK_INVALID, why);
    return dk_fail(err, DK_INVALID, "%s", why);
}

static dk_status hear(host *h, stranger *s, dk_error *err)
{
    ssize_t count;
    do {
        count = recv(s->fd, s->bytes + s->got, sizeof s->bytes - s->got, MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR);
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return DK_OK;
    }
    s->got += count > 0 ? (size_t)count : 0;
    if (count <= 0 || !dk_meeting_hello_begins(s->bytes, s->got)) {
        drop(s);
        return DK_OK;
    }
    return s->got == sizeof s->bytes ? admit(h, s, err) : DK_OK;
}

static void let_in(host *h)
{
    for (int fd; (fd = dk_meeting_accept(h->listener)) >= 0;) {
        stranger *place = &h->strangers[0];
        for (int i = 0; i < STRANGERS && place->fd >= 0; i++) {
            stranger *s = &h->strangers[i];
            if (s->fd < 0 || s->since_ms < place->since_ms) {
                place = s;
            }
        }
        drop(place);
        *place = (stranger){.fd = fd, .since_ms = dk_now_ms()};
    }
}

/* One look at everybody. A failure ends the meeting. */
static dk_status look(host *h, double deadline_ms, dk_error *err)
{
    struct pollfd polled[1 + STRANGERS];
    polled[0] = (struct pollfd){.fd = h->listener, .events = POLLIN};
    for (int i = 0; i < STRANGERS; i++) {
        polled[1 + i] = (struct pollfd){.fd = h->strangers[i].fd, .events = POLLIN};
    }
    poll(polled, 1 + STRANGERS, dk_meeting_left_ms(deadline_ms, LOOK_MS));
    double now = dk_now_ms();
    for (int i = 0; i < STRANGERS; i++) {
        stranger *s = &h->strangers[i];
        if (s->fd >= 0 && polled[1 + i].revents != 0) {
            DK_TRY(hear(h, s, err));
        }
        if (s->fd >= 0 && now - s->since_ms > STRANGER_MS) {
            drop(s);
        }
    }
    if (polled[0].revents != 0) {
        let_in(h);
    }
    return DK_OK;
}

/* "1, 2" of those that are not there; how many. */
static int absent(dk_rendezvous *r, dk_string *names)
{
    int count = 0;
    for (int i = 1; i < r->ranks; i++) {
        if (!is_there(&r->links[i])) {
            if (names != NULL) {
                dk_string_printf(names, count > 0 ? ", %d" : "%d", i);
            }
            count++;
        }
    }
    return count;
}

static dk_status too_late(host *h, dk_error *err)
{
    dk_string names = DK_STRING_EMPTY;
    dk_status status;
    int count = absent(h->r, &names);
    const char *text = dk_string_text(&names), *s = count > 1 ? "s" : "";
    if (h->wrong_keys > 0) {
        status = dk_fail(err, DK_INVALID,
                         "rank%s %s of %d did not come in time; %d came with another key, the "
                         "last of them as rank %d",
                         s, text, h->r->ranks, h->wrong_keys, h->wrong_rank);
    } else {
        status = dk_fail(err, DK_TIMEOUT, "rank%s %s of %d did not come in time", s, text,
                         h->r->ranks);
    }
    dk_string_release(&names);
    return status;
}

static dk_status gather(host *h, double deadline_ms, dk_error *err)
{
    while (absent(h->r, NULL) > 0) {
        if (dk_now_ms() >= deadline_ms) {
            return too_late(h, err);
        }
        DK_TRY(look(h, deadline_ms, err));
    }
    return DK_OK;
}

dk_status dk_meeting_host(dk_rendezvous *r, const dk_rendezvous_options *options, dk_error *err)
{
    dk_error reason = {0};
    dk_status status;
    host *h = dk_alloc(sizeof *h);
    h->r = r;
    h->listener = -1;
    for (int i = 0; i < STRANGERS; i++) {
        h->strangers[i].fd = -1;
    }
    DK_TRY_DONE(dk_meeting_hello_write(h->own, options, err));
    DK_TRY_DONE(dk_meeting_listen(&h->listener, options->address, options->deadline_ms, err));
    status = gather(h, options->deadline_ms, &reason);
    for (int i = 1; i < r->ranks; i++) {
        dk_meeting_link *link = &r->links[i];
        if (link->fd >= 0 && status == DK_OK) {
            (void)dk_meeting_send(link, DK_FRAME_WELCOME, NULL, 0, NULL, 0, 0);
        } else if (link->fd >= 0) {
            (void)dk_meeting_send_text(link, DK_FRAME_REFUSED, (uint32_t)status,
                                       reason.message);
        }
    }
    if (status != DK_OK) {
        status = dk_fail(err, status, "meeting at '%s': %s", options->address, reason.message);
    }
done:
    for (int i = 0; i < STRANGERS; i++) {
        drop(&h->strangers[i]);
    }
    if (h->listener >= 0) {
        close(h->listener);
    }
    dk_free(h);
    return status;
}
