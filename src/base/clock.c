/* Time. */
#include "base/clock.h"

#include <time.h>

static int64_t read_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t dk_now_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

double dk_now_ms(void)
{
    return (double)dk_now_ns() * 1e-6;
}

double dk_thread_ms(void)
{
    return (double)read_ns(CLOCK_THREAD_CPUTIME_ID) * 1e-6;
}
