/* Pictures that come from strangers: decoded in a process of their own that can do nothing but
   decode, fetched from places that the operator named, or carried in a data: URL. */
#ifndef DK_SERVER_UPLOADS_UPLOADS_H
#define DK_SERVER_UPLOADS_UPLOADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/string.h"
#include "media/image.h"

typedef dk_image dk_upload; /* dk_image_release */

/* Zero members mean the default. */
typedef struct dk_upload_limits {
    uint64_t max_pixels; /* default 32 Mi */
    size_t max_bytes;    /* of the file; default 32 MiB */
    int memory_mb;       /* that decoding may take; default 512 */
    int seconds;         /* that it may take; default 10 */
} dk_upload_limits;

/* Decodes PNG, JPEG or WebP to 8-bit RGB, with the alpha plane of pictures that have one, in a
   child: `program decode-upload`, this same command ("/proc/self/exe"). The child has no files,
   no network, a seccomp filter and limits, and is killed when its time is over. out is owned
   (dk_image_release). limits may be NULL. DK_FORMAT: the picture is malformed, over a limit or
   of a kind that is not read; the message says what is accepted. DK_IO, DK_MEMORY, DK_INTERNAL:
   it is this machine's fault. Any thread. */
DK_MUST_USE dk_status dk_upload_decode(dk_upload *out, const void *data, size_t size,
                                       const dk_upload_limits *limits, const char *program,
                                       dk_error *err);

/* The child's side (the hidden sub-command decode-upload): locks the process up, decodes the
   picture on descriptor 3 into descriptor 4 and ends the process. `attempt` is for the tests:
   what to try once the process is locked up ("open", "socket", …); NULL: nothing. */
_Noreturn void dk_upload_decode_child(size_t size, const dk_upload_limits *limits,
                                      const char *attempt);

#endif
