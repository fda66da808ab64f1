/* Between dk_upload_decode and its child: the picture's file on one descriptor, the pixels on
   another, a line of JSON on standard output when it failed. */
#ifndef DK_SERVER_UPLOADS_PROTOCOL_H
#define DK_SERVER_UPLOADS_PROTOCOL_H

#include <stdint.h>

#define DK_UPLOAD_MAGIC "dkpixel1"

enum {
    DK_UPLOAD_INPUT_FD = 3,
    DK_UPLOAD_OUTPUT_FD = 4,
    DK_UPLOAD_REPORT_BYTES = 8192, /* of {"message": "…"}, more is not read */
};

/* The output begins with it; rgb [height][width][3] and alpha [height][width] follow. */
typedef struct dk_upload_header {
    char magic[8];
    uint32_t width, height, has_alpha, unused;
} dk_upload_header;

#endif
