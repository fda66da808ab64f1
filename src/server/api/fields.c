/* The tables of the API's own fields. */
#include "server/api/fields.h"

#include <math.h>
#include <string.h>

#define AT(field) .offset = offsetof(dk_api_fields, field)

#define MODEL                                                                                  \
    {                                                                                          \
        .name = "model", .type = DK_PARAMETER_TEXT, AT(model), .max = 4096,                    \
        .default_text = "the served one", .help = "the model, as GET /v1/models names it"      \
    }
#define USER                                                                                   \
    {                                                                                          \
        .name = "user", .type = DK_PARAMETER_TEXT, AT(user), .max = 512,                       \
        .default_text = "none", .help = "a name for whom the caller works; kept with the job"  \
    }
#define SIZE                                                                                   \
    {                                                                                          \
        .name = "size", .type = DK_PARAMETER_TEXT, AT(size), .max = 32,                        \
        .default_text = "auto",                                                                \
        .help = "WIDTHxHEIGHT in pixels, or auto; width and height say the same"               \
    }
#define COUNT                                                                                  \
    {                                                                                          \
        .name = "n", .type = DK_PARAMETER_INT, AT(n), .min = 1, .max = 10,                     \
        .default_text = "1, or the number of seeds",                                           \
        .help = "outputs; seeds count up from the first"                                       \
    }
#define QUALITY                                                                                \
    {.name = "quality",                                                                        \
     .type = DK_PARAMETER_CHOICE,                                                              \
     AT(quality),                                                                              \
     .choices = "auto, low, medium, high, maximum, standard, hd",                              \
     .default_text = "auto",                                                                   \
     .help = "of the file: what output_quality says in words"},                                \
        {.name = "output_quality",                                                             \
         .type = DK_PARAMETER_INT,                                                             \
         AT(output_quality),                                                                   \
         .max = 100,                                                                           \
         .default_text = "0, the format's default",                                            \
         .help = "of lossy formats, 1 to 100"},                                                \
    {                                                                                          \
        .name = "output_compression", .type = DK_PARAMETER_INT, AT(output_compression),        \
        .max = 100, .default_text = "0, the format's default",                                 \
        .help = "OpenAI's name for output_quality"                                             \
    }
#define LIFE                                                                                   \
    {.name = "priority",                                                                       \
     .type = DK_PARAMETER_INT,                                                                 \
     AT(priority),                                                                             \
     .min = -10,                                                                               \
     .max = 10,                                                                                \
     .default_text = "0",                                                                      \
     .help = "higher ones go first"},                                                          \
        {.name = "timeout_s",                                                                  \
         .type = DK_PARAMETER_REAL,                                                            \
         AT(timeout_s),                                                                        \
         .min = 0.001,                                                                         \
         .max = 31536000,                                                                      \
         .unit = "S",                                                                          \
         .default_text = "none",                                                               \
         .help = "the job fails when it has not ended by then"},                               \
    {                                                                                          \
        .name = "async", .type = DK_PARAMETER_BOOL, AT(async), .default_text = "false",        \
        .help = "answer with the job at once"                                                  \
    }

static const dk_parameter image_fields[] = {
    MODEL,
    COUNT,
    SIZE,
    {.name = "response_format",
     .type = DK_PARAMETER_CHOICE,
     AT(response_format),
     .choices = "b64_json, url",
     .default_text = "b64_json",
     .help = "the picture itself, or where it is"},
    {.name = "output_format",
     .type = DK_PARAMETER_CHOICE,
     AT(output_format),
     .choices = "png, jpeg, webp",
     .default_text = "png",
     .help = "file format"},
    QUALITY,
    {.name = "background",
     .type = DK_PARAMETER_CHOICE,
     AT(background),
     .choices = "auto, opaque",
     .default_text = "auto",
     .help = "pictures are opaque"},
    {.name = "stream",
     .type = DK_PARAMETER_BOOL,
     AT(stream),
     .default_text = "false",
     .help = "answer with server-sent events"},
    {.name = "partial_images",
     .type = DK_PARAMETER_INT,
     AT(partial_images),
     .max = 3,
     .default_text = "0",
     .help = "previews in a stream"},
    LIFE,
    USER,
};

static const dk_parameter video_fields[] = {
    MODEL,
    COUNT,
    SIZE,
    {.name = "seconds",
     .type = DK_PARAMETER_REAL,
     AT(seconds),
     .min = 0.01,
     .max = 600,
     .unit = "S",
     .default_text = "the model's",
     .help = "length; num_frames says the same"},
    {.name = "output_format",
     .type = DK_PARAMETER_CHOICE,
     AT(output_format),
     .choices = "mp4, webm, gif",
     .default_text = "mp4",
     .help = "file format"},
    QUALITY,
    LIFE,
    USER,
};

const dk_parameter_table dk_api_image_fields = {.title = "Pictures",
                                                .parameters = image_fields,
                                                .count =
                                                    sizeof image_fields / sizeof *image_fields};
const dk_parameter_table dk_api_video_fields = {.title = "Videos",
                                                .parameters = video_fields,
                                                .count =
                                                    sizeof video_fields / sizeof *video_fields};

void dk_api_fields_init(dk_api_fields *fields)
{
    *fields = (dk_api_fields){.timeout_s = NAN, .seconds = NAN};
}

bool dk_api_takes_parameter(const dk_parameter *parameter)
{
    static const char *const others[] = {
        "dump_tensors",           "initial_latents", "initial_latents_first",
        "num_outputs_per_prompt", "image_path",      "mask_path"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (strcmp(parameter->name, others[i]) == 0) {
            return false;
        }
    }
    return true;
}
