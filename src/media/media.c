/* Choosing a format, and the promise that a file is whole. */
#include "media/media.h"

#include <stdbool.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"

typedef struct format {
    const char *extension;
    bool one_frame;
    dk_status (*write)(const char *path, const dk_frames *frames,
                       const dk_media_options *options, dk_error *err);
} format;

static const format formats[] = {
    {".png", true, dk_png_write},
    {".mp4", false, dk_mp4_write},
};

const char *dk_media_formats(void)
{
    return "png, mp4";
}

dk_status dk_media_write(const char *path, const dk_frames *frames,
                         const dk_media_options *options, dk_error *err)
{
    const format *found = NULL;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (dk_ends_with(path, formats[i].extension)) {
            found = &formats[i];
        }
    }
    if (found == NULL) {
        return dk_fail(err, DK_INVALID, "%s: the file name must end in one of %s", path,
                       dk_media_formats());
    }
    if (found->one_frame && frames->count != 1) {
        return dk_fail(err, DK_INVALID, "%s: %d frames do not fit a picture, accepted is mp4",
                       path, frames->count);
    }
    if (options->quality < 0 || options->quality > 100) {
        return dk_fail(err, DK_INVALID, "quality is %d, accepted are 1 to 100",
                       options->quality);
    }
    char *temporary = dk_file_temporary(path);
    dk_status status = found->write(temporary, frames, options, err);
    if (status == DK_OK) {
        status = dk_file_publish(temporary, path, err);
    }
    if (status != DK_OK) {
        unlink(temporary);
    }
    dk_free(temporary);
    return status;
}
