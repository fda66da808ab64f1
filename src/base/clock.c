/* Time. */
#include "base/clock.h"

#include <time.h>

int64_t dk_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

double dk_now_ms(void)
{
    return (double)dk_now_ns() * 1e-6;
}
