/* darkroom comm-test: what its files share. */
#ifndef DK_CLI_COMM_TEST_H
#define DK_CLI_COMM_TEST_H

#include <jansson.h>

#include "comm/communicator.h"
#include "comm/launch.h"

typedef struct dk_comm_test_flags {
    const char *backend, *device, *inject;
    int num_gpus;
    int max_bytes; /* a size as the user gives it: bytes */
    double deadline_s;
    bool json;
} dk_comm_test_flags;

/* A fault that is made on purpose. */
typedef enum dk_comm_fault {
    DK_FAULT_NONE,
    DK_FAULT_LATE,
    DK_FAULT_KILL,
    DK_FAULT_CORRUPT
} dk_comm_fault;
typedef struct dk_comm_injection {
    dk_comm_fault fault;
    int rank;
} dk_comm_injection;

/* "late:1"; NULL: none. */
DK_MUST_USE dk_status dk_comm_injection_parse(dk_comm_injection *out, const char *text,
                                              dk_error *err);

/* One rank's part, in this process. *report: of what was done, also after a failure; owned. */
DK_MUST_USE dk_status dk_comm_test_rank(json_t **report, const dk_comm_test_flags *flags,
                                        const dk_comm_injection *injection,
                                        const dk_launch *launch, dk_error *err);

/* Starts the ranks on this host, waits for all, and makes one report, and one failure, of what
   they tell. */
DK_MUST_USE dk_status dk_comm_test_start(json_t **report, const dk_comm_test_flags *flags,
                                         dk_error *err);
/* Becomes mpirun, which starts the ranks. Returns only when that fails. */
DK_MUST_USE dk_status dk_comm_test_become_mpirun(const dk_comm_test_flags *flags,
                                                 dk_error *err);
/* In a rank that dk_comm_test_start started: tells it how this rank ended. */
void dk_comm_test_tell(int rank, dk_status status, const dk_error *err, json_t *report);

#define DK_COMM_TEST_PARENT                                                                    \
    "DARKROOM_COMM_TEST_PARENT" /* the process that waits for a rank                           \
                                 */

#endif
