/* Whether ranks that compute together were started alike. Somebody who starts them by hand, or
   host by host, can give them other options or other files: their calls would not fit, or
   worse, would. */
#ifndef DK_ENGINE_ALIKE_H
#define DK_ENGINE_ALIKE_H

#include "base/error.h"
#include "comm/communicator.h"

enum { DK_FACT_BYTES = 80 };

/* What has to be the same on all ranks: "dtype", and what it is on this one. */
typedef struct dk_fact {
    const char *name;
    char value[DK_FACT_BYTES]; /* NUL-terminated, and zeros behind it */
} dk_fact;

void dk_fact_set(dk_fact *fact, const char *name, const char *format, ...) DK_PRINTF(3, 4);

/* All ranks compare the same facts, in order. DK_INVALID, on all of them: one differs from rank
   0's. */
DK_MUST_USE dk_status dk_facts_compare(const dk_fact *facts, int count, dk_comm *comm,
                                       dk_error *err);

#endif
