/* What a request body may say beside the engine's parameters: OpenAI's fields and ours. */
#ifndef DK_SERVER_API_FIELDS_H
#define DK_SERVER_API_FIELDS_H

#include "base/parameter.h"

typedef struct dk_api_fields {
    const char *model, *user, *size;
    const char *response_format, *output_format, *quality, *background;
    int n, output_quality, output_compression, partial_images, priority;
    double timeout_s, seconds;
    bool stream, async;
} dk_api_fields;

void dk_api_fields_init(dk_api_fields *fields);

extern const dk_parameter_table dk_api_image_fields, dk_api_video_fields;

/* The request parameters that the API takes: those that name no file of the server. */
bool dk_api_takes_parameter(const dk_parameter *parameter);

#endif
