/* A rank goes to rank 0, as often as it takes. */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "comm/meeting.h"
#include "comm/meeting_socket.h"

enum {
    AGAIN_MS = 20,
    GRACE_MS = 1000, /* rank 0, whose deadline is the same, tells who was not there */
};

static dk_status refusal(const dk_meeting_link *link, int rank, const char *address,
                         dk_error *err)
{
    uint32_t status;
    const char *why;
    if (link->kind != DK_FRAME_REFUSED || !dk_meeting_read_text(link, &status, &why)) {
        return dk_fail(err, DK_INVALID, "meeting at '%s': what answers there is no rank 0",
                       address);
    }
    return dk_fail(err, status == DK_TIMEOUT ? DK_TIMEOUT : DK_INVALID,
                   "meeting at '%s': rank 0 sends rank %d away: %s", address, rank, why);
}

/* One attempt. DK_NETWORK: it may be repeated. */
static dk_status visit_once(dk_meeting_link *link, const dk_rendezvous_options *options,
                            dk_error *err)
{
    unsigned char hello[DK_MEETING_HELLO_BYTES];
    DK_TRY(dk_meeting_hello_write(hello, options, err));
    DK_TRY(dk_meeting_connect(&link->fd, options->address, options->deadline_ms, err));
    if (!dk_meeting_send_bytes(link, hello, sizeof hello, options->deadline_ms)) {
        return dk_fail(err, DK_NETWORK, "rank 0 ended the connection");
    }
    switch (dk_meeting_await(link, DK_FRAME_TEXT_BYTES + 4, options->deadline_ms + GRACE_MS)) {
    case DK_LINK_FRAME:
        return link->kind == DK_FRAME_WELCOME
                   ? DK_OK
                   : refusal(link, options->rank, options->address, err);
    case DK_LINK_MALFORMED:
        return refusal(link, options->rank, options->address, err);
    case DK_LINK_WAITS:
        return dk_fail(err, DK_TIMEOUT,
                       "meeting at '%s': rank %d came to rank 0, others did not",
                       options->address, options->rank);
    default:
        return dk_fail(err, DK_NETWORK, "rank 0 ended the connection");
    }
}

dk_status dk_meeting_visit(dk_rendezvous *r, const dk_rendezvous_options *options,
                           dk_error *err)
{
    for (;;) {
        dk_error reason = {0};
        dk_status status = visit_once(&r->links[0], options, &reason);
        if (status == DK_OK) {
            return DK_OK;
        }
        dk_meeting_link_close(&r->links[0]);
        if (status != DK_NETWORK) {
            return dk_fail(err, status, "%s", reason.message);
        }
        if (dk_now_ms() >= options->deadline_ms) {
            return dk_fail(err, DK_TIMEOUT,
                           "meeting at '%s': rank %d found no rank 0 in time, at last: %s",
                           options->address, options->rank, reason.message);
        }
        poll(NULL, 0, AGAIN_MS);
    }
}
