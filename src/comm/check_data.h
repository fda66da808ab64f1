/* Known data: what rank `from` brings for rank `to` (-1: for all), anew in every case. */
#ifndef DK_COMM_CHECK_DATA_H
#define DK_COMM_CHECK_DATA_H

#include "comm/check.h"

void dk_comm_fill_bytes(void *dst, size_t bytes, int from, int to, uint32_t salt);
/* The place of the first byte that is another one; -1: all are right. */
int64_t dk_comm_find_wrong(const void *data, size_t bytes, int from, int to, uint32_t salt);

/* Numbers between -1 and 1 in any order of magnitude down to 2^-8, I32: any. */
void dk_comm_fill_numbers(void *dst, dk_dtype type, size_t begin, size_t count, int from,
                          uint32_t salt);

/* Elements [begin, begin + count) of the reduction of all ranks' numbers against data[count]:
   exactly, or, where the order of the sum is not known, within what rounding can do. Returns
   as above. */
int64_t dk_comm_find_wrong_number(const void *data, const dk_comm_case *c, size_t begin,
                                  size_t count, int ranks, bool exact, uint32_t salt);

#endif
