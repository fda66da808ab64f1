/* The hub's listing of a model. Its reply is a description in JSON whose "siblings" are the
   files; with blobs=true each has "size", "blobId" (Git's SHA-1) and, for a large file,
   "lfs": {"sha256", "size"}. */
#include "hub/listing.h"

#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "base/string.h"

enum { LISTING_BYTES_MAX = 64 * 1024 * 1024, FILES_MAX = 200 * 1000 };

/* ---- the reply ---- */

typedef struct text_sink {
    dk_http_sink sink; /* first: the functions below cast back */
    dk_string text;
} text_sink;

static dk_status write_text(dk_http_sink *sink, const void *bytes, size_t size, dk_error *err)
{
    dk_string *text = &((text_sink *)sink)->text;
    if (size > LISTING_BYTES_MAX - text->length) {
        return dk_fail(err, DK_FORMAT, "the listing is longer than %d bytes",
                       LISTING_BYTES_MAX);
    }
    dk_string_append(text, bytes, size);
    return DK_OK;
}

static dk_status restart_text(dk_http_sink *sink, dk_error *err)
{
    (void)err;
    dk_string_clear(&((text_sink *)sink)->text);
    return DK_OK;
}

dk_status dk_hub_listing_fetch(dk_hub_listing *out, dk_http *http, const char *model,
                               const char *revision, dk_error *err)
{
    text_sink reply = {
        .sink = {.expected = UINT64_MAX, .write = write_text, .restart = restart_text}};
    char *escaped = dk_http_escape(revision, false);
    dk_string path = DK_STRING_EMPTY, what = DK_STRING_EMPTY;
    dk_string_printf(&path, "api/models/%s/revision/%s?blobs=true", model, escaped);
    dk_string_printf(&what, "model '%s' (revision '%s')", model, revision);
    char *url = dk_http_url(http, path.data);
    dk_http_request request = {
        .url = url,
        .what = what.data,
        .model = model,
        .absent_hint = "accepted are the path of a model folder, or a name on the hub such as "
                       "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"};
    dk_status status = dk_http_get(http, &request, &reply.sink, err);
    if (status == DK_OK) {
        status = dk_hub_listing_parse(out, dk_string_text(&reply.text), reply.text.length,
                                      model, err);
    }
    dk_free(url);
    dk_free(escaped);
    dk_string_release(&path);
    dk_string_release(&what);
    dk_string_release(&reply.text);
    return status;
}

/* Size and checksum; an entry that lacks them stays invalid, which matters only if needed. */
static void read_entry(dk_hub_file *file, const json_t *entry)
{
    const json_t *lfs = json_object_get(entry, "lfs");
    const char *sha256 = json_string_value(json_object_get(lfs, "sha256"));
    const char *blob = json_string_value(json_object_get(entry, "blobId"));
    const json_t *size = json_object_get(entry, "size");
    const char *etag = sha256 != NULL ? sha256 : blob;
    size_t digits = sha256 != NULL ? 64 : 40;
    file->valid = etag != NULL && dk_hub_is_hex(etag, digits) && json_is_integer(size) &&
                  json_integer_value(size) >= 0;
    if (file->valid) {
        file->size = (uint64_t)json_integer_value(size);
        memcpy(file->etag, etag, digits + 1);
    }
}

dk_status dk_hub_listing_parse(dk_hub_listing *out, const char *text, size_t size,
                               const char *model, dk_error *err)
{
    dk_hub_listing listing = {0};
    dk_string where = DK_STRING_EMPTY;
    dk_string_printf(&where, "the hub's listing of '%s'", model);
    dk_status status = DK_OK;
    DK_TRY_DONE(dk_json_parse(&listing.json, text, size, where.data, err));
    const char *commit = NULL;
    DK_TRY_DONE(
        dk_json_string(listing.json, "sha", DK_JSON_REQUIRED, &commit, where.data, err));
    if (!dk_hub_is_hex(commit, DK_HUB_COMMIT_BYTES - 1)) {
        status = dk_fail(err, DK_FORMAT, "%s: 'sha' is '%s', expected 40 hexadecimal digits",
                         where.data, commit);
        goto done;
    }
    const json_t *siblings = json_object_get(listing.json, "siblings");
    size_t count = json_array_size(siblings);
    if (!json_is_array(siblings) || count > FILES_MAX) {
        status =
            dk_fail(err, DK_FORMAT, "%s: 'siblings' is %s of %zu, expected at most %d files",
                    where.data, dk_json_type_name(siblings), count, FILES_MAX);
        goto done;
    }
    memcpy(listing.commit, commit, DK_HUB_COMMIT_BYTES);
    listing.files = dk_alloc(count * sizeof *listing.files);
    for (size_t i = 0; i < count; i++) {
        const json_t *entry = json_array_get(siblings, i);
        dk_hub_file *file = &listing.files[listing.count++];
        DK_TRY_DONE(
            dk_json_string(entry, "rfilename", DK_JSON_REQUIRED, &file->path, where.data, err));
        read_entry(file, entry);
    }
    *out = listing;
    listing = (dk_hub_listing){0};
done:
    dk_hub_listing_release(&listing);
    dk_string_release(&where);
    return status;
}

void dk_hub_listing_release(dk_hub_listing *listing)
{
    dk_free(listing->files);
    json_decref(listing->json);
    *listing = (dk_hub_listing){0};
}

const dk_hub_file *dk_hub_listing_find(const dk_hub_listing *listing, const char *path)
{
    for (size_t i = 0; i < listing->count; i++) {
        if (strcmp(listing->files[i].path, path) == 0) {
            return &listing->files[i];
        }
    }
    return NULL;
}

/* ---- the choice ---- */

static bool lists(const dk_hub_listing *listing, const char *component, const char *stem,
                  const char *tail)
{
    dk_string path = DK_STRING_EMPTY;
    dk_string_printf(&path, "%s/%s%s", component, stem, tail);
    bool found = dk_hub_listing_find(listing, path.data) != NULL;
    dk_string_release(&path);
    return found;
}

/* True for "-00001-of-00003.safetensors". */
static bool is_shard_tail(const char *tail)
{
    static const char pattern[] = "-00000-of-00000.safetensors";
    for (size_t i = 0; i < sizeof pattern; i++) {
        bool digit = tail[i] >= '0' && tail[i] <= '9';
        if (pattern[i] == '0' ? !digit : tail[i] != pattern[i]) {
            return false;
        }
    }
    return true;
}

/* The one set of weights of a component; the same order as dk_hub_check_folder's. */
static bool is_needed_weight(const dk_hub_listing *listing, const char *component,
                             const char *leaf)
{
    for (size_t i = 0; dk_hub_weight_stems[i] != NULL; i++) {
        const char *stem = dk_hub_weight_stems[i];
        const char *tail = dk_starts_with(leaf, stem) ? leaf + strlen(stem) : "";
        if (lists(listing, component, stem, ".safetensors.index.json")) {
            return strcmp(tail, ".safetensors.index.json") == 0 || is_shard_tail(tail);
        }
        if (lists(listing, component, stem, ".safetensors")) {
            return strcmp(tail, ".safetensors") == 0;
        }
    }
    return false;
}

static bool ends_with_any(const char *text, const char *const *endings)
{
    for (size_t i = 0; endings[i] != NULL; i++) {
        if (dk_ends_with(text, endings[i])) {
            return true;
        }
    }
    return false;
}

bool dk_hub_file_is_needed(const dk_hub_listing *listing, const dk_hub_components *components,
                           const dk_hub_file *file)
{
    static const char *const wanted[] = {".json", ".txt", ".model", ".jinja", NULL};
    static const char *const unwanted[] = {
        ".bin",  ".pt",   ".pth", ".ckpt", ".onnx",        ".onnx_data", ".msgpack",
        ".h5",   ".pb",   ".xml", ".gguf", ".md",          ".png",       ".jpg",
        ".jpeg", ".webp", ".gif", ".mp4",  ".safetensors", NULL};
    const char *slash = strchr(file->path, '/');
    const dk_hub_component *component =
        slash == NULL
            ? NULL
            : dk_hub_components_find(components, file->path, (size_t)(slash - file->path));
    if (component == NULL) {
        return false;
    }
    const char *leaf = slash + 1;
    if (strstr(leaf, ".safetensors") != NULL) {
        return component->kind == DK_HUB_MODEL &&
               is_needed_weight(listing, component->name, leaf);
    }
    if (component->kind == DK_HUB_TOKENIZER) {
        return !ends_with_any(leaf, unwanted);
    }
    return ends_with_any(leaf, wanted) && strchr(leaf, '/') == NULL &&
           !dk_ends_with(leaf, ".index.json") && !dk_starts_with(leaf, "flax_");
}

dk_status dk_hub_file_check(const dk_hub_file *file, const char *model, dk_error *err)
{
    if (!dk_path_is_inside(file->path, true)) {
        return dk_fail(
            err, DK_FORMAT,
            "the hub's listing of '%s': the file name '%s' leaves the model's folder", model,
            file->path);
    }
    if (!file->valid) {
        return dk_fail(err, DK_FORMAT,
                       "the hub's listing of '%s': '%s' has no usable size and checksum", model,
                       file->path);
    }
    return DK_OK;
}
