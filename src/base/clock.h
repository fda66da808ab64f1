/* Time. */
#ifndef DK_BASE_CLOCK_H
#define DK_BASE_CLOCK_H

double dk_now_ms(void); /* monotonic, milliseconds since an arbitrary start */

#endif
