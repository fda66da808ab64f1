/* Pictures that come with a body: in a form as files, in JSON as data: URLs or base64, and from
   allowed hosts by URL. A child decodes them; the job keeps them as PNG files of our own, so
   that no other process ever reads a stranger's bytes. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "media/media.h"
#include "server/api/state.h"
#include "server/uploads/uploads.h"

enum { MAX_HOSTS = 64 };

void dk_pictures_release(dk_pictures *pictures)
{
    for (int i = 0; i < pictures->count; i++) {
        dk_free((void *)(uintptr_t)pictures->inputs[i].data);
    }
    *pictures = (dk_pictures){0};
}

/* The operator's list "a.org, .b.org" as the policy wants it; `text` (owned) holds the names.
 */
static void read_policy(const dk_api *api, dk_fetch_policy *policy, char **text,
                        const char *hosts[MAX_HOSTS])
{
    int count = 0;
    *text = dk_strdup(api->options->allowed_url_hosts != NULL ? api->options->allowed_url_hosts
                                                              : "");
    char *rest = *text;
    for (char *host = strsep(&rest, ", "); host != NULL && count < MAX_HOSTS;
         host = strsep(&rest, ", ")) {
        if (host[0] != '\0') {
            hosts[count++] = host;
        }
    }
    *policy = (dk_fetch_policy){.hosts = hosts, .host_count = count};
}

static dk_status fetch(const dk_api *api, const char *url, dk_string *out, dk_error *err)
{
    char *text;
    const char *hosts[MAX_HOSTS];
    dk_fetch_policy policy;
    if (api->options->allowed_url_hosts == NULL) {
        return dk_fail(err, DK_INVALID,
                       "this server fetches no pictures by URL (--allowed-url-hosts), send the "
                       "file or a data: URL");
    }
    read_policy(api, &policy, &text, hosts);
    dk_status status = dk_upload_fetch(out, url, &policy, err);
    dk_free(text);
    return status;
}

static dk_status read_text(const dk_api *api, const char *text, dk_string *out, dk_error *err)
{
    enum { MOST = 32 * 1024 * 1024 };
    if (text[0] == '\0') {
        return dk_fail(err, DK_INVALID,
                       "nothing is there, accepted are a file in a form, a "
                       "data: URL and base64");
    }
    if (dk_starts_with(text, "data:")) {
        return dk_upload_data_url(out, text, MOST, err);
    }
    return dk_starts_with(text, "http://") || dk_starts_with(text, "https://")
               ? fetch(api, text, out, err)
               : dk_upload_base64(out, text, strlen(text), MOST, err);
}

/* A member of a JSON body: a text, {"image_url": text}, or a list of one of these. */
static const char *text_of_json(const json_t *value)
{
    if (json_is_array(value)) {
        value = json_array_get(value, 0);
    }
    if (json_is_object(value)) {
        value = json_object_get(value, "image_url");
    }
    return json_string_value(value);
}

/* The bytes of the first field of that name. *found: there is one. */
static dk_status find(const dk_api *api, const dk_http_request *request, const json_t *body,
                      const char *const *names, dk_string *out, bool *found, dk_error *err)
{
    *found = false;
    for (int i = 0; names[i] != NULL; i++) {
        const dk_http_part *part = dk_http_part_find(request, names[i]);
        const json_t *value = json_object_get(body, names[i]);
        if (part != NULL && (part->size > 0 || part->file_name != NULL)) {
            *found = true;
            if (part->file_name == NULL) {
                return read_text(api, part->data, out, err);
            }
            dk_string_append(out, part->data, part->size);
            return DK_OK;
        }
        if (value != NULL && !json_is_null(value)) {
            const char *text = text_of_json(value);
            *found = true;
            return text != NULL ? read_text(api, text, out, err)
                                : dk_fail(err, DK_INVALID,
                                          "accepted are a data: URL and "
                                          "base64");
        }
    }
    return DK_OK;
}

/* White is what changes: the transparent part of a picture with alpha, as OpenAI has it. */
static void make_mask(dk_upload *picture)
{
    size_t pixels = (size_t)picture->width * (size_t)picture->height;
    for (size_t i = 0; i < pixels; i++) {
        uint8_t *rgb = picture->rgb + 3 * i;
        unsigned gray = (299u * rgb[0] + 587u * rgb[1] + 114u * rgb[2] + 500u) / 1000u;
        uint8_t value =
            picture->alpha != NULL ? (uint8_t)(255 - picture->alpha[i]) : (uint8_t)gray;
        rgb[0] = rgb[1] = rgb[2] = value;
    }
}

static dk_status add(const dk_api *api, const dk_string *bytes, bool mask, const char *name,
                     dk_pictures *out, dk_error *err)
{
    dk_upload picture = {0};
    dk_string png = DK_STRING_EMPTY;
    DK_TRY(dk_upload_decode(&picture, bytes->data, bytes->length, NULL, api->options->program,
                            err));
    if (mask) {
        make_mask(&picture);
    } else {
        out->width = picture.width;
        out->height = picture.height;
    }
    const dk_frames frames = {
        .count = 1, .height = picture.height, .width = picture.width, .rgb = picture.rgb};
    dk_status status = dk_media_encode_png(&png, &frames, err);
    dk_image_release(&picture);
    if (status == DK_OK) {
        size_t size = png.length;
        out->inputs[out->count++] =
            (dk_job_input){.name = name, .data = dk_string_take(&png), .size = size};
    }
    dk_string_release(&png);
    return status;
}

static dk_status read_one(const dk_api *api, const dk_http_request *request, const json_t *body,
                          const char *const *names, bool mask, dk_pictures *out, bool *found,
                          dk_error *err)
{
    dk_string bytes = DK_STRING_EMPTY;
    dk_status status = find(api, request, body, names, &bytes, found, err);
    if (status == DK_OK && *found) {
        status = add(api, &bytes, mask, mask ? "input-mask.png" : "input-image.png", out, err);
    }
    dk_string_release(&bytes);
    return status == DK_OK ? DK_OK : dk_fail_in(err, status, "%s", names[0]);
}

dk_status dk_pictures_read(dk_api *api, const dk_http_request *request, const json_t *body,
                           bool required, dk_pictures *out, char *param, dk_error *err)
{
    static const char *const images[] = {"image", "image[]", "input_reference", "images", "url",
                                         "url[]", NULL};
    static const char *const masks[] = {"mask", NULL};
    bool has_image, has_mask;
    *out = (dk_pictures){0};
    snprintf(param, DK_ORDER_PARAM_BYTES, "image");
    dk_status status = read_one(api, request, body, images, false, out, &has_image, err);
    if (status == DK_OK && !has_image && required) {
        return dk_fail(err, DK_INVALID, "image is missing, accepted are png, jpeg, webp");
    }
    if (status == DK_OK) {
        snprintf(param, DK_ORDER_PARAM_BYTES, "mask");
        status = read_one(api, request, body, masks, true, out, &has_mask, err);
    }
    if (status == DK_OK && has_mask && !has_image) {
        status = dk_fail(err, DK_INVALID, "mask is given without image");
    }
    if (status != DK_OK) {
        dk_pictures_release(out);
        return status;
    }
    param[0] = '\0';
    return DK_OK;
}
