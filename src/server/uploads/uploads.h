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

/* Where pictures may be fetched from. */
typedef struct dk_fetch_policy {
    /* [host_count]: "images.example.org" is that host, ".example.org" is every host below it
       (not example.org itself); "host:8443" allows that port, else there are 80 and 443. None:
       nothing is fetched. */
    const char *const *hosts;
    int host_count;
    size_t max_bytes;   /* 0: 32 MiB */
    int seconds;        /* for all of it; 0: 20 */
    bool allow_private; /* also addresses that are not public, such as this machine's */
} dk_fetch_policy;

/* Fetches an http or https URL: GET, at most three redirects, each to an allowed host and none
   from https to http. Whatever the names say, the address that is connected to must be public.
   The environment's proxies are not used. Appends to out. DK_INVALID: the URL is malformed or
   not allowed; DK_NETWORK: it could not be fetched, in time; DK_FORMAT: too large. Messages
   name the host, never the rest of the URL. Any thread. */
DK_MUST_USE dk_status dk_upload_fetch(dk_string *out, const char *url,
                                      const dk_fetch_policy *policy, dk_error *err);

/* Appends what "data:image/png;base64,…" carries. DK_INVALID: not that, or not base64;
   DK_FORMAT: more than max_bytes. */
DK_MUST_USE dk_status dk_upload_data_url(dk_string *out, const char *url, size_t max_bytes,
                                         dk_error *err);
/* The same for base64 alone: the standard alphabet, with or without padding; line ends and
   blanks are skipped. */
DK_MUST_USE dk_status dk_upload_base64(dk_string *out, const char *text, size_t length,
                                       size_t max_bytes, dk_error *err);

/* The child's side (the hidden sub-command decode-upload): locks the process up, decodes the
   picture on descriptor 3 into descriptor 4 and ends the process. `attempt` is for the tests:
   what to try once the process is locked up ("open", "socket", …); NULL: nothing. */
_Noreturn void dk_upload_decode_child(size_t size, const dk_upload_limits *limits,
                                      const char *attempt);

#endif
