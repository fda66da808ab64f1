/* Who has arrived at which call: oneCCL does not tell, so the ranks of one host note it in a
   page that they share. Ranks of other hosts do not appear in it. */
#ifndef DK_COMM_XCCL_ARRIVALS_H
#define DK_COMM_XCCL_ARRIVALS_H

#include <stdatomic.h>
#include <stdint.h>

#include "comm/transport.h"

enum { DK_XCCL_MOST_GROUPS = 64 };

/* Zero in the beginning: the count of calls that a rank has begun, by group and outermost rank.
 */
typedef struct dk_xccl_board {
    _Atomic uint64_t begun[DK_XCCL_MOST_GROUPS][DK_COMM_MOST_RANKS];
} dk_xccl_board;

/* The board of a name that all ranks of a host give. Its file has no name any more once all of
   them have called _hide, each after all have opened it. */
DK_MUST_USE dk_status dk_xccl_board_open(dk_xccl_board **out, const char *name, dk_error *err);
void dk_xccl_board_hide(const char *name);
void dk_xccl_board_close(dk_xccl_board *board); /* NULL is fine */

#endif
