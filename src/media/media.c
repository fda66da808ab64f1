/* Choosing a format, and the promise that a file is whole. */
#include "media/media.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "media/formats.h"

/* extension, several frames, longest side that the format or its library takes, writer */
#define FORMATS(X)                                                                             \
    X("png", false, 1000000, dk_png_write)                                                     \
    X("jpg", false, 65500, dk_jpeg_write)                                                      \
    X("jpeg", false, 65500, dk_jpeg_write)                                                     \
    X("webp", false, 16383, dk_webp_write)                                                     \
    X("mp4", true, 16384, dk_mp4_write)                                                        \
    X("webm", true, 16384, dk_webm_write)                                                      \
    X("gif", true, 65535, dk_gif_write)

typedef struct format {
    const char *extension;
    bool video;
    int max_side;
    dk_media_writer *write;
} format;

static const format formats[] = {
#define FORMAT_ROW(...) {__VA_ARGS__},
    FORMATS(FORMAT_ROW)
#undef FORMAT_ROW
};

enum { FORMAT_COUNT = sizeof formats / sizeof *formats };

const char *dk_media_formats(void)
{
#define FORMAT_NAME(extension, ...) ", " extension
    static const char names[] = FORMATS(FORMAT_NAME);
    return names + strlen(", ");
#undef FORMAT_NAME
}

/* name is a path, a file name or a bare extension. */
static const format *find_format(const char *name)
{
    const char *leaf = dk_path_name(name), *dot = strrchr(leaf, '.');
    const char *extension = dot != NULL ? dot + 1 : leaf;
    for (int i = 0; i < FORMAT_COUNT; i++) {
        if (strcasecmp(extension, formats[i].extension) == 0) {
            return &formats[i];
        }
    }
    return NULL;
}

static dk_status refuse_frames(const char *name, int frames, dk_error *err)
{
    dk_string accepted = DK_STRING_EMPTY;
    for (int i = 0; i < FORMAT_COUNT; i++) {
        if (formats[i].video) {
            dk_string_printf(&accepted, "%s%s", accepted.length > 0 ? ", " : "",
                             formats[i].extension);
        }
    }
    dk_status status =
        dk_fail(err, DK_INVALID, "%s: %d frames do not fit into one picture, accepted are %s",
                name, frames, dk_string_text(&accepted));
    dk_string_release(&accepted);
    return status;
}

dk_status dk_media_format_check(const char *name, int frames, dk_error *err)
{
    const format *found = find_format(name);
    if (found == NULL) {
        return dk_fail(err, DK_INVALID, "%s: unknown file format, accepted are %s", name,
                       dk_media_formats());
    }
    if (frames < 1) {
        return dk_fail(err, DK_INVALID, "%s: %d frames, accepted are 1 and more", name, frames);
    }
    return frames > 1 && !found->video ? refuse_frames(name, frames, err) : DK_OK;
}

bool dk_media_is_video(const char *name)
{
    const format *found = find_format(name);
    return found != NULL && found->video;
}

dk_status dk_media_fail_errno(const dk_media_target *target, dk_error *err)
{
    return dk_fail(err, DK_IO, "%s: cannot be written: %s", target->name, strerror(errno));
}

static dk_status check(const char *path, const dk_frames *frames,
                       const dk_media_options *options, dk_error *err)
{
    DK_TRY(dk_media_format_check(path, frames->count, err));
    int max_side = find_format(path)->max_side;
    if (frames->width < 1 || frames->height < 1 || frames->width > max_side ||
        frames->height > max_side) {
        return dk_fail(err, DK_INVALID, "%s: %d x %d pixels, accepted are 1 to %d on each side",
                       path, frames->width, frames->height, max_side);
    }
    if (options->quality < 0 || options->quality > 100) {
        return dk_fail(err, DK_INVALID, "quality is %d, accepted are 1 to 100",
                       options->quality);
    }
    return DK_OK;
}

dk_status dk_media_write(const char *path, const dk_frames *frames,
                         const dk_media_options *options, dk_error *err)
{
    DK_TRY(check(path, frames, options, err));
    char *temporary = dk_file_temporary(path);
    const dk_media_target target = {.file = temporary, .name = path};
    dk_status status = find_format(path)->write(&target, frames, options, err);
    if (status == DK_OK) {
        status = dk_file_publish(temporary, path, err);
    }
    if (status != DK_OK) {
        unlink(temporary);
    }
    dk_free(temporary);
    return status;
}
