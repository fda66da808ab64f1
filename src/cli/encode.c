/* darkroom encode: raw frames become a picture or video file, for the Python SDK, so that all
   formats have one writer. */
#include <stddef.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "media/media.h"

enum { MAX_SIDE = 65535, MAX_FRAMES = 65535, CHANNELS = 3 };

typedef struct encode_flags {
    const char *frames, *recipe, *output_file;
    int width, height, num_frames, output_quality;
    double fps;
} encode_flags;

#define AT(field) .offset = offsetof(encode_flags, field)

static const dk_parameter parameters[] = {
    {.name = "frames",
     .type = DK_PARAMETER_TEXT,
     AT(frames),
     .max = 4096,
     .unit = "FILE",
     .default_text = "required",
     .help = "8-bit RGB: num_frames x height x width x 3 bytes"},
    {.name = "width",
     .type = DK_PARAMETER_INT,
     AT(width),
     .min = 1,
     .max = MAX_SIDE,
     .unit = "PIXELS",
     .default_text = "required",
     .help = "of a frame"},
    {.name = "height",
     .type = DK_PARAMETER_INT,
     AT(height),
     .min = 1,
     .max = MAX_SIDE,
     .unit = "PIXELS",
     .default_text = "required",
     .help = "of a frame"},
    {.name = "num_frames",
     .type = DK_PARAMETER_INT,
     AT(num_frames),
     .min = 1,
     .max = MAX_FRAMES,
     .default_text = "1",
     .help = "frames in the file"},
    {.name = "fps",
     .type = DK_PARAMETER_REAL,
     AT(fps),
     .min = 1,
     .max = 240,
     .unit = "X",
     .default_text = "16",
     .help = "frames per second of videos"},
    {.name = "recipe",
     .type = DK_PARAMETER_TEXT,
     AT(recipe),
     .max = 4096,
     .unit = "FILE",
     .default_text = "none",
     .help = "the recipe that made the frames, kept inside the new file"},
    {.name = "output_quality",
     .type = DK_PARAMETER_INT,
     AT(output_quality),
     .min = 1,
     .max = 100,
     .default_text = "the format's",
     .help = "quality of jpeg, webp, mp4 and webm"},
    {.name = "output_file",
     .type = DK_PARAMETER_TEXT,
     AT(output_file),
     .max = 4096,
     .unit = "FILE",
     .default_text = "required",
     .help = "the new file; its extension chooses the format"},
};
static const dk_parameter_table encode_parameters = {.title = "Frames and file",
                                                     .parameters = parameters,
                                                     .count = sizeof parameters /
                                                              sizeof *parameters};

static dk_status check(const encode_flags *flags, dk_error *err)
{
    if (flags->frames == NULL || flags->output_file == NULL || flags->width == 0 ||
        flags->height == 0) {
        return dk_fail(err, DK_INVALID,
                       "needed are --frames, --width, --height and --output-file");
    }
    return dk_media_format_check(flags->output_file, flags->num_frames, err);
}

static dk_status write_file(const encode_flags *flags, const dk_mapping *rgb,
                            const char *recipe, dk_error *err)
{
    size_t expected =
        (size_t)flags->num_frames * (size_t)flags->height * (size_t)flags->width * CHANNELS;
    if (rgb->size != expected) {
        return dk_fail(err, DK_FORMAT, "%s has %zu bytes, expected %zu: %d x %d x %d x %d",
                       flags->frames, rgb->size, expected, flags->num_frames, flags->height,
                       flags->width, CHANNELS);
    }
    const dk_frames frames = {.count = flags->num_frames,
                              .height = flags->height,
                              .width = flags->width,
                              .rgb = rgb->data};
    const dk_media_options options = {
        .quality = flags->output_quality, .fps = flags->fps, .recipe = recipe};
    return dk_media_write(flags->output_file, &frames, &options, err);
}

static dk_status run(const dk_arguments *arguments, dk_error *err)
{
    encode_flags flags = {.num_frames = 1, .fps = 16};
    dk_mapping rgb = {0};
    char *recipe = NULL;
    size_t size;
    DK_TRY(dk_arguments_apply(arguments, &encode_parameters, &flags, err));
    DK_TRY(check(&flags, err));
    dk_status status = dk_mapping_open(&rgb, flags.frames, err);
    if (status == DK_OK && flags.recipe != NULL) {
        status = dk_file_read(&recipe, &size, flags.recipe, DK_MEDIA_RECIPE_BYTES, err);
    }
    if (status == DK_OK) {
        status = write_file(&flags, &rgb, recipe, err);
    }
    dk_mapping_close(&rgb);
    dk_free(recipe);
    return status;
}

static const dk_flag_group groups[] = {{&encode_parameters, NULL}, {NULL, NULL}};

const dk_command dk_command_encode = {
    .name = "encode",
    .usage = "--frames FILE --width PIXELS --height PIXELS --output-file FILE [flags]",
    .summary = "write raw frames as a picture or video file",
    .examples = "darkroom encode --frames frames.rgb --width 128 --height 128 "
                "--output-file frames.png\n",
    .hidden = true,
    .groups = groups,
    .run = run,
};
