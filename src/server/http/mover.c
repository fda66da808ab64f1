/* The loop around libmicrohttpd.

   Its own loops are not used: it takes up to 128 events at a time from the kernel, and one that
   got exactly so many waits for another one before it looks at them (0.9.75 to 1.0.1: 128
   requests at once sleep until somebody else comes). Here the waiting is ours, and its turns
   never wait. */
#include "server/http/mover.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "server/http/team.h"

/* Milliseconds until a connection has been idle for too long; -1: none is open. */
static int wait_ms(const dk_http_mover *mover)
{
    MHD_UNSIGNED_LONG_LONG timeout;
    if (MHD_get_timeout(mover->daemon, &timeout) != MHD_YES) {
        return -1;
    }
    return timeout < INT_MAX ? (int)timeout : INT_MAX;
}

static void *move(void *context)
{
    dk_http_mover *mover = context;
    struct pollfd polled[] = {
        {.fd = MHD_get_daemon_info(mover->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd,
         .events = POLLIN},
        {.fd = mover->wake_fd, .events = POLLIN},
    };
    while (atomic_load(&mover->moving)) {
        MHD_run(mover->daemon);
        if (poll(polled, 2, wait_ms(mover)) > 0 && polled[1].revents != 0) {
            eventfd_t value;
            eventfd_read(mover->wake_fd, &value); /* before the turn that sees what it is for */
        }
    }
    return NULL;
}

dk_status dk_http_mover_start(dk_http_mover *mover, struct MHD_Daemon *daemon, dk_error *err)
{
    mover->daemon = daemon;
    mover->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (mover->wake_fd < 0) {
        MHD_stop_daemon(daemon);
        return dk_fail(err, DK_MEMORY, "the HTTP server cannot be started: an eventfd: %s",
                       strerror(errno));
    }
    atomic_store(&mover->moving, true);
    dk_status status = dk_http_thread_create(&mover->thread, move, mover, err);
    if (status != DK_OK) {
        MHD_stop_daemon(daemon);
        close(mover->wake_fd);
    }
    return status;
}

void dk_http_mover_wake(dk_http_mover *mover)
{
    eventfd_write(mover->wake_fd, 1);
}

void dk_http_mover_resume(dk_http_mover *mover, struct MHD_Connection *connection)
{
    MHD_resume_connection(connection);
    dk_http_mover_wake(mover);
}

void dk_http_mover_stop(dk_http_mover *mover)
{
    atomic_store(&mover->moving, false);
    dk_http_mover_wake(mover);
    pthread_join(mover->thread, NULL);
    MHD_stop_daemon(mover->daemon);
    close(mover->wake_fd);
}
