/* Converting weight files. */
#include "weights/recast.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tensor/convert.h"

enum { CHUNK = 256 * 1024 }; /* elements */

/* One file on its way. */
typedef struct recast {
    FILE *file;
    const char *to, *where;
    const dk_recast_options *options;
    float *values;  /* [CHUNK] */
    void *narrowed; /* [CHUNK] elements of up to four bytes */
    uint64_t written;
} recast;

static bool is_kept(const char *name, const char *const *keep)
{
    for (; keep != NULL && *keep != NULL; keep++) {
        size_t length = strlen(*keep);
        for (const char *part = name; part != NULL; part = strchr(part, '.')) {
            part += *part == '.' ? 1 : 0;
            if (strncmp(part, *keep, length) == 0 &&
                (part[length] == '.' || part[length] == '\0')) {
                return true;
            }
        }
    }
    return false;
}

static dk_dtype target_type(const dk_weight *weight, const dk_recast_options *options)
{
    dk_dtype stored = weight->tensor.dtype;
    if (!dk_dtype_is_float(stored)) {
        return stored;
    }
    return is_kept(weight->name, options->keep_f32) ? DK_F32 : options->dtype;
}

uint64_t dk_recast_bytes(const dk_safetensors *from, const dk_recast_options *options)
{
    uint64_t bytes = 0;
    for (int i = 0; i < dk_safetensors_count(from); i++) {
        dk_weight weight = *dk_safetensors_at(from, i);
        weight.tensor.dtype = target_type(&weight, options);
        bytes += dk_tensor_bytes(&weight.tensor);
    }
    return bytes;
}

/* f64 to f32 so that a second rounding to 16 bits is right: an inexact value keeps an odd last
   bit ("round to odd"; Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums",
   2008). Straight to f32 the nearest is taken. */
static float narrow_f64(double value, bool again)
{
    float nearest = (float)value;
    uint32_t bits;
    if (!again || !isfinite(nearest) || (double)nearest == value) {
        return nearest;
    }
    memcpy(&bits, &nearest, sizeof bits);
    if (fabs((double)nearest) > fabs(value)) {
        bits--; /* towards zero */
    }
    bits |= 1;
    memcpy(&nearest, &bits, sizeof nearest);
    return nearest;
}

static void widen(float *dst, const void *src, dk_dtype type, bool again, int64_t count)
{
    if (type != DK_F64) {
        dk_convert_to_f32(dst, src, type, count);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        double value;
        memcpy(&value, (const char *)src + (size_t)i * sizeof value, sizeof value);
        dst[i] = narrow_f64(value, again);
    }
}

/* The smallest magnitude that rounds to infinity: halfway behind the largest value. */
static float overflow_limit(dk_dtype to)
{
    return to == DK_F16 ? 65520.0f : to == DK_BF16 ? 0x1.ffp127f : INFINITY;
}

/* The first finite value that the type cannot hold, or -1. */
static int64_t find_overflow(const recast *r, const void *src, dk_dtype from, dk_dtype to,
                             int64_t count)
{
    float limit = overflow_limit(to);
    for (int64_t i = 0; i < count; i++) {
        if (!(fabsf(r->values[i]) >= limit)) {
            continue;
        }
        double value = r->values[i];
        if (from == DK_F64) {
            memcpy(&value, (const char *)src + (size_t)i * sizeof value, sizeof value);
        }
        if (!isinf(value)) {
            return i;
        }
    }
    return -1;
}

static dk_status put(recast *r, const void *bytes, size_t size, dk_error *err)
{
    if (fwrite(bytes, 1, size, r->file) != size) {
        return dk_fail(err, DK_IO, "%s: %s", r->to, strerror(errno));
    }
    r->written += size;
    if (r->options->progress != NULL) {
        r->options->progress(r->options->progress_context, r->written);
    }
    if (r->options->cancel != NULL &&
        atomic_load_explicit(r->options->cancel, memory_order_relaxed)) {
        return dk_fail(err, DK_CANCELLED, "stopped on request");
    }
    return DK_OK;
}

static dk_status put_tensor(recast *r, const dk_weight *weight, dk_error *err)
{
    const dk_tensor *tensor = &weight->tensor;
    dk_dtype to = target_type(weight, r->options);
    const char *src = tensor->data;
    if (to == tensor->dtype) {
        const size_t piece = (size_t)CHUNK * 4;
        for (size_t at = 0, bytes = dk_tensor_bytes(tensor); at < bytes; at += piece) {
            DK_TRY(put(r, src + at, bytes - at < piece ? bytes - at : piece, err));
        }
        return DK_OK;
    }
    size_t from_bytes = dk_dtype_bytes(tensor->dtype), to_bytes = dk_dtype_bytes(to);
    int64_t count = dk_tensor_count(tensor);
    for (int64_t at = 0; at < count; at += CHUNK) {
        int64_t n = count - at < CHUNK ? count - at : CHUNK;
        const char *piece = src + (size_t)at * from_bytes;
        widen(r->values, piece, tensor->dtype, to != DK_F32, n);
        dk_convert_from_f32(r->narrowed, to, r->values, n);
        int64_t lost = find_overflow(r, piece, tensor->dtype, to, n);
        if (lost >= 0) {
            return dk_fail(err, DK_INVALID,
                           "%s: value %lld of tensor '%s' is %g, which %s cannot hold",
                           r->where, (long long)(at + lost), weight->name,
                           (double)r->values[lost], dk_dtype_name(to));
        }
        DK_TRY(put(r, r->narrowed, (size_t)n * to_bytes, err));
    }
    return DK_OK;
}

static dk_status put_header(recast *r, const dk_safetensors *from, dk_error *err)
{
    int count = dk_safetensors_count(from);
    dk_safetensors_entry *entries = dk_alloc((size_t)count * sizeof *entries);
    for (int i = 0; i < count; i++) {
        const dk_weight *weight = dk_safetensors_at(from, i);
        entries[i] = (dk_safetensors_entry){.name = weight->name, .tensor = weight->tensor};
        entries[i].tensor.dtype = target_type(weight, r->options);
    }
    char *header = NULL;
    size_t size;
    dk_status status = dk_safetensors_header(&header, &size, entries, count,
                                             dk_safetensors_all_metadata(from), err);
    if (status == DK_OK) {
        status = put(r, header, size, err);
    }
    dk_free(header);
    dk_free(entries);
    return status;
}

dk_status dk_recast_file(const char *to, const dk_safetensors *from,
                         const dk_recast_options *options, const char *where, dk_error *err)
{
    recast r = {.to = to, .where = where, .options = options, .file = fopen(to, "wbx")};
    if (r.file == NULL) {
        return dk_fail(err, DK_IO, "%s: %s", to, strerror(errno));
    }
    r.values = dk_alloc((size_t)CHUNK * sizeof *r.values);
    r.narrowed = dk_alloc((size_t)CHUNK * sizeof(float));
    dk_status status = put_header(&r, from, err);
    for (int i = 0; i < dk_safetensors_count(from) && status == DK_OK; i++) {
        status = put_tensor(&r, dk_safetensors_at(from, i), err);
    }
    bool kept = fflush(r.file) == 0 && fsync(fileno(r.file)) == 0;
    kept = fclose(r.file) == 0 && kept;
    if (status == DK_OK && !kept) {
        status = dk_fail(err, DK_IO, "%s: %s", to, strerror(errno));
    }
    dk_free(r.values);
    dk_free(r.narrowed);
    return status;
}
