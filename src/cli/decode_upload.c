/* darkroom decode-upload: the child of dk_upload_decode. Hidden: nobody types it. */
#include <errno.h>
#include <stdlib.h>

#include "cli/arguments.h"
#include "server/uploads/uploads.h"

static dk_status read_number(const char *text, unsigned long long most,
                             unsigned long long *number, dk_error *err)
{
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || *number > most) {
        return dk_fail(err, DK_INVALID, "'%.40s' is not a number, accepted are 0 to %llu", text,
                       most);
    }
    return DK_OK;
}

static dk_status decode_upload(const dk_arguments *arguments, dk_error *err)
{
    unsigned long long size, pixels, memory_mb, seconds;
    const char *const *words = arguments->positionals;
    DK_TRY(read_number(words[0], SIZE_MAX / 2, &size, err));
    DK_TRY(read_number(words[1], UINT32_MAX, &pixels, err));
    DK_TRY(read_number(words[2], 1 << 20, &memory_mb, err));
    DK_TRY(read_number(words[3], 3600, &seconds, err));
    const dk_upload_limits limits = {
        .max_pixels = pixels, .memory_mb = (int)memory_mb, .seconds = (int)seconds};
    dk_upload_decode_child((size_t)size, &limits,
                           arguments->positional_count > 4 ? words[4] : NULL);
}

const dk_command dk_command_decode_upload = {
    .name = "decode-upload",
    .usage = "BYTES PIXELS MEMORY_MB SECONDS [ATTEMPT]",
    .summary = "Decodes the picture on descriptor 3 into descriptor 4, locked up in a sandbox.",
    .text =
        "Started by darkroom serve for each picture that a client sends. ATTEMPT is for the "
        "tests: open, socket, fork, exec, kill, code, spin or memory is tried before the "
        "picture is read, and must end the process.",
    .examples = "  darkroom decode-upload 1000 1000000 256 10 3<picture.png 4<>pixels\n",
    .hidden = true,
    .positionals_min = 4,
    .positionals_max = 5,
    .run = decode_upload,
};
