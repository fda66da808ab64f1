/* The cache folder in the layout of huggingface_hub:
     <cache>/models--org--name/refs/main                the commit that "main" named last
     <cache>/models--org--name/blobs/<etag>             contents, each once
     <cache>/models--org--name/snapshots/<commit>/...   relative symbolic links into blobs
     <cache>/.locks/models--org--name/<etag>.lock       held (flock) while a blob is fetched */
#ifndef DK_HUB_CACHE_H
#define DK_HUB_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"

enum { DK_HUB_COMMIT_BYTES = 41, DK_HUB_ETAG_BYTES = 65 }; /* hex digits and the final NUL */

typedef struct dk_hub_cache {
    char *root;  /* owned: <cache>/models--org--name */
    char *locks; /* owned: <cache>/.locks/models--org--name */
} dk_hub_cache;

/* True for "org/name" of [A-Za-z0-9._-] as the hub accepts it: no "--", no "..", no part that
   begins or ends with '-' or '.'. Such a name is safe in a path and in a URL. */
bool dk_hub_is_model_name(const char *model);
/* True for a branch, tag or commit of [A-Za-z0-9._/-] that stays inside refs/. */
bool dk_hub_is_revision(const char *revision);
/* True when text is `digits` lower-case hexadecimal digits and nothing else. */
bool dk_hub_is_hex(const char *text, size_t digits);

/* Only builds the paths; `model` is a valid name. */
void dk_hub_cache_init(dk_hub_cache *cache, const char *cache_folder, const char *model);
void dk_hub_cache_release(dk_hub_cache *cache);

/* The commit that the revision names in this cache; false when it is not known. */
bool dk_hub_cache_commit(char commit[DK_HUB_COMMIT_BYTES], const dk_hub_cache *cache,
                         const char *revision);
DK_MUST_USE dk_status dk_hub_cache_set_commit(const dk_hub_cache *cache, const char *revision,
                                              const char *commit, dk_error *err);

char *dk_hub_cache_snapshot(const dk_hub_cache *cache, const char *commit); /* owned */
char *dk_hub_cache_blob(const dk_hub_cache *cache, const char *etag);       /* owned */
char *dk_hub_cache_incomplete(const dk_hub_cache *cache, const char *etag); /* owned */
/* True when the blob is there with that size. */
bool dk_hub_cache_has_blob(const dk_hub_cache *cache, const char *etag, uint64_t size);
/* Bytes that blobs/<etag>.incomplete holds from an earlier run; 0 when there is none. */
uint64_t dk_hub_cache_partial(const dk_hub_cache *cache, const char *etag);

/* snapshots/<commit>/<name> becomes a relative link to the blob. `name` is inside its folder
   (dk_path_is_inside). */
DK_MUST_USE dk_status dk_hub_cache_link(const dk_hub_cache *cache, const char *commit,
                                        const char *name, const char *etag, dk_error *err);

/* Waits until no other process fetches the blob. *lock is a descriptor to close; -1 where the
   file system has no locks (checksums still guard the blob). */
DK_MUST_USE dk_status dk_hub_cache_lock(int *lock, const dk_hub_cache *cache, const char *etag,
                                        const atomic_bool *cancel, const dk_log *log,
                                        dk_error *err);

/* Fails (DK_IO) with both figures when the file system has fewer than `needed` bytes free. */
DK_MUST_USE dk_status dk_hub_cache_check_space(const dk_hub_cache *cache, uint64_t needed,
                                               dk_error *err);

#endif
