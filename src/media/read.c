/* Files that come in: the format is told by the first bytes, never by the name. */
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "media/formats.h"
#include "tokenizer/utf8.h"

enum {
    CHANNELS = 3,
    DEFAULT_MAX_PIXELS = 64 * 1024 * 1024,
    DEFAULT_MAX_BYTES = 256 * 1024 * 1024,
    MAX_SIDE = 1 << 24, /* so that a row's bytes fit into an int */
};

typedef struct content {
    const char *magic;
    size_t offset, length;    /* of magic in the file */
    dk_image_decoder *decode; /* NULL: not read as a picture */
    dk_recipe_finder *recipe;
} content;

static const content contents[] = {
    {"\x89PNG\r\n\x1A\n", 0, 8, dk_png_decode, dk_png_recipe},
    {"\xFF\xD8\xFF", 0, 3, dk_jpeg_decode, dk_jpeg_recipe},
    {"WEBP", 8, 4, dk_webp_decode, dk_webp_recipe}, /* behind "RIFF" and a size */
    {"GIF8", 0, 4, NULL, dk_gif_recipe},
    {"ftyp", 4, 4, NULL, dk_mp4_recipe}, /* behind the first box's size */
    {"\x1A\x45\xDF\xA3", 0, 4, NULL, dk_webm_recipe},
};

static const content *find_content(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        const content *c = &contents[i];
        if (size >= c->offset + c->length &&
            memcmp(data + c->offset, c->magic, c->length) == 0) {
            return c;
        }
    }
    return NULL;
}

void dk_image_release(dk_image *image)
{
    dk_free(image->rgb);
    dk_free(image->alpha);
    *image = (dk_image){0};
}

dk_status dk_image_begin(dk_image *out, uint64_t width, uint64_t height, const char *where,
                         const dk_media_limits *limits, dk_error *err)
{
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE ||
        width * height > limits->max_pixels) {
        return dk_fail(err, DK_FORMAT, "%s: %llu x %llu pixels, accepted are 1 to %llu in all",
                       where, (unsigned long long)width, (unsigned long long)height,
                       (unsigned long long)limits->max_pixels);
    }
    void *rgb;
    DK_TRY(dk_try_alloc(&rgb, (size_t)(width * height) * CHANNELS, where, err));
    *out = (dk_image){.height = (int)height, .width = (int)width, .rgb = rgb};
    return DK_OK;
}

dk_status dk_image_split(dk_image *image, const uint8_t *rgba, const char *where, dk_error *err)
{
    const size_t pixels = (size_t)image->width * (size_t)image->height;
    void *alpha;
    DK_TRY(dk_try_alloc(&alpha, pixels, where, err));
    image->alpha = alpha;
    for (size_t i = 0; i < pixels; i++) {
        memcpy(image->rgb + i * CHANNELS, rgba + i * (CHANNELS + 1), CHANNELS);
        image->alpha[i] = rgba[i * (CHANNELS + 1) + CHANNELS];
    }
    return DK_OK;
}

static dk_media_limits complete(const dk_media_limits *limits)
{
    dk_media_limits all = limits != NULL ? *limits : (dk_media_limits){0};
    all.max_pixels = all.max_pixels > 0 ? all.max_pixels : DEFAULT_MAX_PIXELS;
    all.max_bytes = all.max_bytes > 0 ? all.max_bytes : DEFAULT_MAX_BYTES;
    return all;
}

dk_status dk_image_decode(dk_image *out, const void *data, size_t size, const char *where,
                          const dk_media_limits *limits, dk_error *err)
{
    const dk_media_limits all = complete(limits);
    const content *found = find_content(data, size);
    if (found == NULL) {
        return dk_fail(err, DK_FORMAT, "%s: not a picture, " DK_IMAGE_ACCEPTED, where);
    }
    if (found->decode == NULL) {
        return dk_fail(err, DK_UNSUPPORTED,
                       "%s: GIF and video files are not read as pictures, " DK_IMAGE_ACCEPTED,
                       where);
    }
    if (size > all.max_bytes) {
        return dk_fail(err, DK_FORMAT, "%s: %zu bytes, at most %zu are accepted", where, size,
                       all.max_bytes);
    }
    return found->decode(out, data, size, where, &all, err);
}

/* Read, not mapped: a file that somebody cuts meanwhile must not end the process. */
dk_status dk_media_read_image(dk_image *out, const char *path, const dk_media_limits *limits,
                              dk_error *err)
{
    char *bytes;
    size_t size;
    const dk_media_limits all = complete(limits);
    DK_TRY(dk_file_read(&bytes, &size, path, all.max_bytes, err));
    dk_status status = dk_image_decode(out, bytes, size, path, &all, err);
    dk_free(bytes);
    return status;
}

dk_status dk_recipe_append(dk_string *out, const uint8_t *bytes, size_t size, const char *where,
                           dk_error *err)
{
    if (size > DK_MEDIA_RECIPE_BYTES - out->length) {
        return dk_fail(err, DK_FORMAT, "%s: the recipe is longer than %d bytes", where,
                       DK_MEDIA_RECIPE_BYTES);
    }
    dk_string_append(out, (const char *)bytes, size);
    return DK_OK;
}

dk_status dk_media_decode_recipe(char **out, const void *data, size_t size, const char *where,
                                 dk_error *err)
{
    dk_string text = DK_STRING_EMPTY;
    const content *found = find_content(data, size);
    if (found == NULL) {
        return dk_fail(err, DK_FORMAT, "%s: no picture or video, accepted are %s", where,
                       dk_media_formats());
    }
    dk_status status = found->recipe(&text, data, size, where, err);
    if (status != DK_OK) {
        goto done;
    }
    /* Other programs leave comments, too: only an object is a recipe. */
    if (text.length == 0 || text.data[0] != '{') {
        status = dk_fail(err, DK_NOT_FOUND, "%s: carries no recipe", where);
    } else if (memchr(text.data, '\0', text.length) != NULL ||
               dk_utf8_check(text.data, text.length, where, NULL) != DK_OK) {
        status = dk_fail(err, DK_FORMAT, "%s: the recipe is not UTF-8 text", where);
    } else {
        *out = dk_string_take(&text);
    }
done:
    dk_string_release(&text);
    return status;
}

dk_status dk_media_read_recipe(char **out, const char *path, dk_error *err)
{
    dk_mapping file;
    DK_TRY(dk_mapping_open(&file, path, err));
    dk_status status = dk_media_decode_recipe(out, file.data, file.size, path, err);
    dk_mapping_close(&file);
    return status;
}
