/* One file from the hub into the cache, checked against its checksum. */
#ifndef DK_HUB_FETCH_H
#define DK_HUB_FETCH_H

#include <stdint.h>

#include "base/error.h"
#include "hub/cache.h"
#include "hub/http.h"
#include "hub/listing.h"

/* What all files of one call share. */
typedef struct dk_hub_fetch {
    dk_http *http; /* borrowed, like everything here */
    const dk_hub_options *options;
    const dk_hub_cache *cache;
    const char *model;
    const char *commit;
    uint64_t all_done, all_total; /* bytes of the files that had to be fetched */
    double told_ms;               /* when progress was last reported */
} dk_hub_fetch;

/* Makes blobs/<etag> hold the file's content. Does nothing when it does already. A transfer
   goes on from blobs/<etag>.incomplete; content with a wrong checksum is removed. */
DK_MUST_USE dk_status dk_hub_fetch_blob(dk_hub_fetch *fetch, const dk_hub_file *file,
                                        dk_error *err);

#endif
