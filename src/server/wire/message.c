/* The header of messages: writing and strict reading. */
#include "server/wire/message.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json.h"

void dk_message_init(dk_message *message, const char *type)
{
    *message = (dk_message){.header = json_object(), .fd = -1};
    json_object_set_new(message->header, "v", json_integer(DK_MESSAGE_VERSION));
    json_object_set_new(message->header, "type", json_string(type));
}

void dk_message_pack(dk_message *message, const char *type, const char *format, ...)
{
    va_list args;
    dk_message_init(message, type);
    va_start(args, format);
    json_t *members = json_vpack_ex(NULL, 0, format, args);
    va_end(args);
    json_object_update(message->header, members);
    json_decref(members);
}

void dk_message_release(dk_message *message)
{
    json_decref(message->header);
    for (int i = 0; i < message->blob_count; i++) {
        dk_free(message->blobs[i].data);
    }
    if (message->header != NULL && message->fd >= 0) {
        close(message->fd);
    }
    *message = (dk_message){.fd = -1};
}

const char *dk_message_type(const dk_message *message)
{
    return dk_message_text(message, "type");
}

const char *dk_message_text(const dk_message *message, const char *key)
{
    const char *text = json_string_value(json_object_get(message->header, key));
    return text != NULL ? text : "";
}

double dk_message_number(const dk_message *message, const char *key, double otherwise)
{
    const json_t *value = json_object_get(message->header, key);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

double dk_message_coming_ms(const dk_message *message)
{
    enum { SLOWEST_BYTES_PER_MS = 5000 };
    return dk_message_number(message, "coming", 0) / SLOWEST_BYTES_PER_MS;
}

void dk_message_add_blob(dk_message *message, void *data, size_t size)
{
    message->blobs[message->blob_count++] = (dk_blob){.data = data, .size = size};
}

dk_status dk_message_take_in(dk_message *message, dk_error *err)
{
    struct stat info;
    void *frames = NULL;
    dk_status status = fstat(message->fd, &info) == 0
                           ? dk_try_alloc(&frames, (size_t)info.st_size, "frames", err)
                           : dk_fail(err, DK_INTERNAL, "the frames have no size");
    for (off_t at = 0; status == DK_OK && at < info.st_size;) {
        ssize_t got = pread(message->fd, (char *)frames + at, (size_t)(info.st_size - at), at);
        at += got > 0 ? got : 0;
        status = got > 0 ? DK_OK : dk_fail(err, DK_INTERNAL, "the frames cannot be read");
    }
    if (status != DK_OK) {
        dk_free(frames);
        return status;
    }
    dk_message_add_blob(message, frames, (size_t)info.st_size);
    close(message->fd);
    message->fd = -1;
    return DK_OK;
}

dk_status dk_message_put_out(dk_message *message, dk_error *err)
{
    if (message->blob_count != 1 || message->fd >= 0) {
        return dk_fail(err, DK_FORMAT, "message: frames are one binary part");
    }
    const dk_blob *frames = &message->blobs[0];
    int fd = memfd_create("darkroom-frames", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    for (size_t done = 0; fd >= 0 && done < frames->size;) {
        ssize_t wrote = write(fd, (const char *)frames->data + done, frames->size - done);
        done += wrote > 0 ? (size_t)wrote : 0;
        if (wrote <= 0) {
            close(fd);
            fd = -1;
        }
    }
    if (fd < 0) {
        return dk_fail(err, DK_MEMORY, "no shared memory for %zu bytes of frames",
                       frames->size);
    }
    dk_free(frames->data);
    message->blob_count = 0;
    message->fd = fd;
    json_object_del(message->header, "blobs");
    return DK_OK;
}

dk_status dk_message_encode(const dk_message *message, char **text, size_t *size, dk_error *err)
{
    if (message->blob_count > 0) {
        json_t *sizes = json_array();
        for (int i = 0; i < message->blob_count; i++) {
            json_array_append_new(sizes, json_integer((json_int_t)message->blobs[i].size));
        }
        json_object_set_new(message->header, "blobs", sizes);
    }
    char *dumped = json_dumps(message->header, JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (dumped == NULL || strlen(dumped) > DK_MESSAGE_HEADER_BYTES) {
        free(dumped);
        return dk_fail(err, DK_INTERNAL, "a message '%s' is no UTF-8 or too long",
                       dk_message_type(message));
    }
    *size = strlen(dumped);
    *text = dk_strndup(dumped, *size);
    free(dumped);
    return DK_OK;
}

static dk_status read_sizes(const json_t *header, uint64_t sizes[DK_MESSAGE_MAX_BLOBS],
                            int *count, dk_error *err)
{
    const json_t *blobs = json_object_get(header, "blobs");
    *count = 0;
    if (blobs == NULL) {
        return DK_OK;
    }
    if (!json_is_array(blobs) || json_array_size(blobs) > DK_MESSAGE_MAX_BLOBS) {
        return dk_fail(err, DK_FORMAT, "message: blobs is no list of up to %d sizes",
                       DK_MESSAGE_MAX_BLOBS);
    }
    for (size_t i = 0; i < json_array_size(blobs); i++) {
        const json_t *value = json_array_get(blobs, i);
        json_int_t size = json_integer_value(value);
        if (!json_is_integer(value) || size < 0 || (uint64_t)size > DK_MESSAGE_BLOB_BYTES) {
            return dk_fail(err, DK_FORMAT, "message: blob %zu has no size that is accepted", i);
        }
        sizes[i] = (uint64_t)size;
    }
    *count = (int)json_array_size(blobs);
    return DK_OK;
}

dk_status dk_message_decode(dk_message *out, const void *text, size_t size,
                            uint64_t sizes[DK_MESSAGE_MAX_BLOBS], int *count, dk_error *err)
{
    json_t *header = NULL;
    int64_t version = 0;
    const char *type = NULL;
    if (size > DK_MESSAGE_HEADER_BYTES) {
        return dk_fail(err, DK_FORMAT, "message: a header of %zu bytes, accepted are up to %d",
                       size, DK_MESSAGE_HEADER_BYTES);
    }
    DK_TRY(dk_json_parse(&header, text, size, "message", err));
    dk_status status = DK_OK;
    if (!json_is_object(header)) {
        status = dk_fail(err, DK_FORMAT, "message: the header is %s, expected an object",
                         dk_json_type_name(header));
        goto done;
    }
    DK_TRY_DONE(dk_json_int(header, "v", DK_MESSAGE_VERSION, DK_MESSAGE_VERSION,
                            DK_JSON_REQUIRED, &version, "message", err));
    DK_TRY_DONE(dk_json_string(header, "type", DK_JSON_REQUIRED, &type, "message", err));
    DK_TRY_DONE(read_sizes(header, sizes, count, err));
    *out = (dk_message){.header = json_incref(header), .fd = -1};
done:
    json_decref(header);
    return status;
}
