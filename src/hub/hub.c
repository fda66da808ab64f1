/* A model's name becomes a folder: the path as it is, the cache, or the hub. */
#include "hub/hub.h"

#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "hub/cache.h"
#include "hub/components.h"
#include "hub/fetch.h"
#include "hub/http.h"
#include "hub/listing.h"

static const char accepted_forms[] =
    "accepted are the path of a model folder, or a name on the hub such as "
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers";

static dk_status fail_name(const char *model, dk_error *err)
{
    if (dk_path_exists(model)) {
        return dk_fail(err, DK_INVALID, "model '%s' is a file; %s", model, accepted_forms);
    }
    if (model[0] == '/' || model[0] == '.' || model[0] == '~' || dk_ends_with(model, "/")) {
        return dk_fail(err, DK_NOT_FOUND, "model '%s': there is no such folder; %s", model,
                       accepted_forms);
    }
    return dk_fail(err, DK_INVALID,
                   "model '%s' is neither a folder that exists nor a name on the hub; %s",
                   model, accepted_forms);
}

/* The snapshot when the cache has all of it; otherwise *missing says what it lacks. */
static bool find_in_cache(char **folder, const dk_hub_cache *cache, const char *revision,
                          dk_error *missing)
{
    char commit[DK_HUB_COMMIT_BYTES];
    if (!dk_hub_cache_commit(commit, cache, revision)) {
        (void)dk_fail(missing, DK_NOT_FOUND, "%s has no revision '%s'", cache->root, revision);
        return false;
    }
    char *snapshot = dk_hub_cache_snapshot(cache, commit);
    bool complete = dk_hub_check_folder(snapshot, missing) == DK_OK;
    if (complete) {
        *folder = snapshot;
    } else {
        dk_free(snapshot);
    }
    return complete;
}

/* ---- the way over the hub ---- */

/* The files to fetch, in the order of the listing. */
typedef struct choice {
    const dk_hub_file **files; /* owned; the entries are borrowed */
    size_t count;
} choice;

/* Fetches model_index.json, which says what the components are. It is linked into the snapshot
   last, so that a snapshot with it has everything. */
static dk_status fetch_index(dk_hub_components *components, dk_hub_fetch *fetch,
                             const dk_hub_listing *listing, dk_error *err)
{
    const dk_hub_file *index = dk_hub_listing_find(listing, "model_index.json");
    if (index == NULL) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "model '%s' has no model_index.json, so it is not in diffusers layout; "
                       "such a model is often offered under a name that ends in '-Diffusers'",
                       fetch->model);
    }
    DK_TRY(dk_hub_file_check(index, fetch->model, err));
    DK_TRY(dk_hub_fetch_blob(fetch, index, err));
    char *path = dk_hub_cache_blob(fetch->cache, index->etag);
    dk_status status = dk_hub_components_load(components, path, err);
    dk_free(path);
    return status;
}

static dk_status choose(choice *out, const dk_hub_listing *listing,
                        const dk_hub_components *components, const char *model, dk_error *err)
{
    out->files = dk_alloc(listing->count * sizeof *out->files);
    for (size_t i = 0; i < listing->count; i++) {
        const dk_hub_file *file = &listing->files[i];
        if (dk_hub_file_is_needed(listing, components, file)) {
            DK_TRY(dk_hub_file_check(file, model, err));
            out->files[out->count++] = file;
        }
    }
    return DK_OK;
}

/* Sums what is still to come, and refuses early when the disk cannot take it. */
static dk_status plan(dk_hub_fetch *fetch, const choice *chosen, dk_error *err)
{
    uint64_t total = 0, held = 0;
    for (size_t i = 0; i < chosen->count; i++) {
        const dk_hub_file *file = chosen->files[i];
        if (dk_hub_cache_has_blob(fetch->cache, file->etag, file->size)) {
            continue;
        }
        if (__builtin_add_overflow(total, file->size, &total)) {
            return dk_fail(err, DK_FORMAT, "the hub's listing of '%s': the sizes do not add up",
                           fetch->model);
        }
        uint64_t partial = dk_hub_cache_partial(fetch->cache, file->etag);
        held += partial <= file->size ? partial : 0;
    }
    fetch->all_done = 0;
    fetch->all_total = total;
    dk_log_info(fetch->options->log, "%s: %.3f GB to fetch", fetch->model,
                (double)(total - held) * 1e-9);
    return dk_hub_cache_check_space(fetch->cache, total - held, err);
}

static dk_status fetch_files(dk_hub_fetch *fetch, const choice *chosen,
                             const dk_hub_listing *listing, dk_error *err)
{
    DK_TRY(plan(fetch, chosen, err));
    for (size_t i = 0; i < chosen->count; i++) {
        const dk_hub_file *file = chosen->files[i];
        DK_TRY(dk_hub_fetch_blob(fetch, file, err));
        DK_TRY(dk_hub_cache_link(fetch->cache, fetch->commit, file->path, file->etag, err));
    }
    const dk_hub_file *index = dk_hub_listing_find(listing, "model_index.json");
    return dk_hub_cache_link(fetch->cache, fetch->commit, index->path, index->etag, err);
}

static dk_status make_cache_folders(const dk_hub_cache *cache, dk_error *err)
{
    char *blobs = dk_path_join(cache->root, "blobs");
    dk_status status = dk_make_folders(blobs, err);
    dk_free(blobs);
    return status;
}

static dk_status download(const dk_hub_cache *cache, const char *model, const char *revision,
                          const dk_hub_options *options, dk_error *err)
{
    dk_http *http = NULL;
    dk_hub_listing listing = {0};
    dk_hub_components components = {0};
    choice chosen = {0};
    dk_status status = DK_OK;
    DK_TRY_DONE(dk_http_create(&http, options, err));
    DK_TRY_DONE(dk_hub_listing_fetch(&listing, http, model, revision, err));
    dk_hub_fetch fetch = {.http = http,
                          .options = options,
                          .cache = cache,
                          .model = model,
                          .commit = listing.commit};
    DK_TRY_DONE(make_cache_folders(cache, err));
    DK_TRY_DONE(dk_hub_cache_set_commit(cache, revision, listing.commit, err));
    DK_TRY_DONE(fetch_index(&components, &fetch, &listing, err));
    DK_TRY_DONE(choose(&chosen, &listing, &components, model, err));
    DK_TRY_DONE(fetch_files(&fetch, &chosen, &listing, err));
done:
    dk_free(chosen.files);
    dk_hub_components_release(&components);
    dk_hub_listing_release(&listing);
    dk_http_destroy(&http);
    return status;
}

static dk_status resolve_name(char **folder, const char *model, const char *revision,
                              const dk_hub_options *options, dk_error *err)
{
    dk_error missing = {0};
    dk_hub_cache cache;
    dk_hub_cache_init(&cache, options->cache_folder, model);
    dk_status status = DK_OK;
    if (find_in_cache(folder, &cache, revision, &missing)) {
        goto done;
    }
    if (options->offline) {
        status = dk_fail(err, DK_NOT_FOUND,
                         "model '%s' is not in the cache: %s; HF_HUB_OFFLINE is on, so that it "
                         "cannot be fetched",
                         model, missing.message);
        goto done;
    }
    dk_log_info(options->log, "%s: not complete in the cache: %s", model, missing.message);
    DK_TRY_DONE(download(&cache, model, revision, options, err));
    if (!find_in_cache(folder, &cache, revision, &missing)) {
        status =
            dk_fail(err, DK_UNSUPPORTED,
                    "model '%s': the hub does not offer all files of a diffusers folder: %s",
                    model, missing.message);
    }
done:
    dk_hub_cache_release(&cache);
    return status;
}

dk_status dk_hub_resolve(char **folder, const char *model, const dk_hub_options *options,
                         dk_error *err)
{
    if (dk_path_is_folder(model)) {
        *folder = dk_strdup(model);
        return DK_OK;
    }
    if (dk_path_exists(model) || !dk_hub_is_model_name(model)) {
        return fail_name(model, err);
    }
    const char *revision = options->revision != NULL ? options->revision : "main";
    if (!dk_hub_is_revision(revision)) {
        return dk_fail(err, DK_INVALID,
                       "revision '%s' is not accepted, expected a branch, a tag or a commit",
                       revision);
    }
    if (options->cache_folder == NULL || options->cache_folder[0] == '\0') {
        return dk_fail(err, DK_INVALID, "model '%s': no cache folder is set (HF_HOME)", model);
    }
    return resolve_name(folder, model, revision, options, err);
}
