/* Address space that is taken at once; its pages come with their first use and can be given
   back one by one. */
#ifndef DK_BASE_REGION_H
#define DK_BASE_REGION_H

#include <stddef.h>

#include "base/error.h"

/* Zeros, at an address of whole pages; owned. `what` names it in the DK_MEMORY message. */
DK_MUST_USE dk_status dk_region_open(void **out, size_t bytes, const char *what, dk_error *err);
void dk_region_close(void *memory, size_t bytes); /* NULL is fine */

/* This process keeps none of the pages that the range touches: those of a region are zeros from
   now on, those of a mapped file come again from the file when they are read. */
void dk_pages_give_back(const void *memory, size_t bytes);

#endif
