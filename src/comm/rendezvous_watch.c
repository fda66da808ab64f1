/* The watch: a thread that hears when a rank is gone. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "comm/meeting.h"

typedef enum news { NEWS_NONE, NEWS_LEFT, NEWS_LOST } news;

/* What rank 0 hears of rank i, and the others of rank 0 (and from it of any). *why is borrowed
   from the link. */
static news hear(dk_meeting_link *link, int *rank, const char **why)
{
    uint32_t gone;
    switch (dk_meeting_receive(link, DK_FRAME_TEXT_BYTES + 4)) {
    case DK_LINK_WAITS:
        return NEWS_NONE;
    case DK_LINK_ENDED:
        *why = dk_meeting_end_text(link);
        return NEWS_LOST;
    case DK_LINK_MALFORMED:
        *why = "it sent something else than expected";
        return NEWS_LOST;
    default:
        break;
    }
    if (link->kind == DK_FRAME_LEAVE) {
        return NEWS_LEFT;
    }
    *why = "it sent something else than expected";
    if (link->kind == DK_FRAME_GIVE_UP) {
        *why = (const char *)link->body;
    } else if (link->kind == DK_FRAME_GONE && dk_meeting_read_text(link, &gone, why)) {
        *rank = (int)gone;
    }
    return NEWS_LOST;
}

static void *watch(void *argument)
{
    dk_rendezvous *r = argument;
    int count = r->rank == 0 ? r->ranks : 1;
    struct pollfd *polled = dk_alloc((size_t)(count + 1) * sizeof *polled);
    news found = NEWS_NONE;
    for (int i = 0; i < count; i++) {
        polled[i] = (struct pollfd){.fd = r->links[i].fd, .events = POLLIN};
    }
    polled[count] = (struct pollfd){.fd = r->stop_fd, .events = POLLIN};
    while (found != NEWS_LOST) {
        while (poll(polled, (nfds_t)count + 1, -1) < 0 && errno == EINTR) {
        }
        if (polled[count].revents != 0) {
            break;
        }
        for (int i = 0; i < count && found != NEWS_LOST; i++) {
            int rank = i;
            const char *why = NULL;
            found = polled[i].revents != 0 ? hear(&r->links[i], &rank, &why) : NEWS_NONE;
            if (found == NEWS_LEFT) {
                polled[i].fd = -1;
            } else if (found == NEWS_LOST) {
                r->lost(r->context, rank, why);
                if (r->rank == 0) {
                    dk_meeting_tell_gone(r, rank, why);
                }
            }
        }
    }
    dk_free(polled);
    return NULL;
}

dk_status dk_rendezvous_watch(dk_rendezvous *r, dk_rendezvous_lost_fn *lost, void *context,
                              dk_error *err)
{
    sigset_t all, before;
    r->lost = lost;
    r->context = context;
    r->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->stop_fd < 0) {
        return dk_fail(err, DK_MEMORY, "the watch of a meeting: %s", strerror(errno));
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&r->thread, NULL, watch, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) {
        return dk_fail(err, DK_MEMORY, "the watch of a meeting: %s", strerror(code));
    }
    r->is_watched = true;
    return DK_OK;
}

void dk_rendezvous_end_watch(dk_rendezvous *r)
{
    uint64_t one = 1;
    if (r->is_watched) {
        ssize_t written = write(r->stop_fd, &one, sizeof one);
        (void)written; /* an empty eventfd takes it */
        pthread_join(r->thread, NULL);
        r->is_watched = false;
    }
    if (r->stop_fd >= 0) {
        close(r->stop_fd);
        r->stop_fd = -1;
    }
}
