/* Time. */
#ifndef DK_BASE_CLOCK_H
#define DK_BASE_CLOCK_H

#include <stdint.h>

/* Monotonic, since an arbitrary start that all processes of a host share. */
double dk_now_ms(void);
int64_t dk_now_ns(void);
/* Of a processor that the calling thread has used. */
double dk_thread_ms(void);

#endif
