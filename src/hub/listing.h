/* What the hub says a model consists of, and the choice of what a diffusers folder needs. */
#ifndef DK_HUB_LISTING_H
#define DK_HUB_LISTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "hub/cache.h"
#include "hub/components.h"
#include "hub/http.h"

typedef struct dk_hub_file {
    const char *path; /* borrowed from the listing; from the server, see dk_hub_file_check */
    uint64_t size;
    char etag[DK_HUB_ETAG_BYTES]; /* SHA-256 of a large file, Git's SHA-1 of a small one */
    bool valid;                   /* size and etag were there and make sense */
} dk_hub_file;

typedef struct dk_hub_listing {
    char commit[DK_HUB_COMMIT_BYTES];
    dk_hub_file *files; /* owned */
    size_t count;
    struct json_t *json; /* owned: holds the paths */
} dk_hub_listing;

/* Asks <endpoint>/api/models/<model>/revision/<revision>?blobs=true. */
DK_MUST_USE dk_status dk_hub_listing_fetch(dk_hub_listing *out, dk_http *http,
                                           const char *model, const char *revision,
                                           dk_error *err);
/* The same from the text of the reply. */
DK_MUST_USE dk_status dk_hub_listing_parse(dk_hub_listing *out, const char *text, size_t size,
                                           const char *model, dk_error *err);
void dk_hub_listing_release(dk_hub_listing *listing);

const dk_hub_file *dk_hub_listing_find(const dk_hub_listing *listing, const char *path);

/* True when the file belongs to one of the components and is of use: configurations,
   vocabularies, and one set of weights (sharded before single, never a variant). */
bool dk_hub_file_is_needed(const dk_hub_listing *listing, const dk_hub_components *components,
                           const dk_hub_file *file);
/* Fails (DK_FORMAT) for a name that leaves the folder, and without a size or a checksum. */
DK_MUST_USE dk_status dk_hub_file_check(const dk_hub_file *file, const char *model,
                                        dk_error *err);

#endif
