/* Facts of ranks, side by side. */
#include "engine/alike.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void dk_fact_set(dk_fact *fact, const char *name, const char *format, ...)
{
    va_list args;
    *fact = (dk_fact){.name = name};
    va_start(args, format);
    vsnprintf(fact->value, sizeof fact->value, format, args);
    va_end(args);
}

static dk_status compare(const dk_fact *fact, dk_comm *comm, dk_error *err)
{
    char all[DK_COMM_MOST_RANKS][DK_FACT_BYTES];
    size_t bytes[DK_COMM_MOST_RANKS];
    int ranks = dk_comm_ranks(comm);
    for (int i = 0; i < ranks; i++) {
        bytes[i] = DK_FACT_BYTES;
    }
    DK_TRY(dk_comm_all_gather(comm, all, fact->value, 1, bytes, err));
    for (int i = 1; i < ranks; i++) {
        if (memcmp(all[i], all[0], DK_FACT_BYTES) != 0) {
            return dk_fail(err, DK_INVALID,
                           "%s is '%.*s' on rank %d, '%.*s' on rank 0: ranks that compute "
                           "together take the same",
                           fact->name, DK_FACT_BYTES - 1, all[i], i, DK_FACT_BYTES - 1, all[0]);
        }
    }
    return DK_OK;
}

dk_status dk_facts_compare(const dk_fact *facts, int count, dk_comm *comm, dk_error *err)
{
    for (int i = 0; i < count; i++) {
        DK_TRY(compare(&facts[i], comm, err));
    }
    return DK_OK;
}
