/* Results become files. */
#include <stddef.h>

#include "darkroom/darkroom.h"
#include "media/media.h"

dk_status dk_result_save(const dk_result *result, int output, const char *path, int quality,
                         dk_error *err)
{
    if (output < 0 || output >= result->outputs) {
        return dk_fail(err, DK_INVALID, "output is %d, accepted are 0 to %d", output,
                       result->outputs - 1);
    }
    size_t bytes = (size_t)result->frames * (size_t)result->height * (size_t)result->width * 3;
    const dk_frames frames = {.count = result->frames,
                              .height = result->height,
                              .width = result->width,
                              .rgb = result->rgb + (size_t)output * bytes};
    const dk_media_options options = {
        .quality = quality,
        .fps = result->fps,
        .recipe = result->recipes != NULL ? result->recipes[output] : NULL};
    return dk_media_write(path, &frames, &options, err);
}
