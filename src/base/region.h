/* Pages of memory: regions, which take address space at once, and whose pages come with their
   first use and can be given back one by one; and the size of pages. */
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

/* Large pages for this memory where the system has them, and it is large enough: an operand
   that streams through the caches costs an address translation less for each 4 KiB. Takes no
   more memory than the range has. */
void dk_pages_make_large(void *memory, size_t bytes);

#endif
