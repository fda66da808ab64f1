/* What a checkpoint belongs to, and what ranks and replicas have in common. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/engine_state.h"
#include "engine/recipe.h"
#include "pipeline/request_parameters.h"

static json_t *weights_of(const dk_engine *engine)
{
    json_t *weights = json_array();
    char *const *files = engine->pipeline->weight_files;
    for (size_t i = 0; files != NULL && files[i] != NULL; i++) {
        dk_file_stamp stamp = dk_file_stamp_of(files[i]);
        json_array_append_new(weights, json_pack("[s, I, I]", files[i], (json_int_t)stamp.bytes,
                                                 (json_int_t)stamp.changed_ns));
    }
    return weights;
}

static json_t *engine_of(const dk_engine *engine)
{
    const char *quantization = dk_engine_quantization(engine);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:f, s:o}", "version", DK_VERSION,
                     "pipeline", engine->pipeline->class_name, "dtype", engine->dtype, "cpu",
                     dk_engine_cpu_level(engine), "attention",
                     dk_attention_backend_name(engine->device->attention), "quantization",
                     quantization != NULL ? quantization : "none", "max_error",
                     engine->max_error, "weights", weights_of(engine));
}

/* Files of a request belong to the identity by their sums, not by where they lie. */
static bool is_left_out(const char *name)
{
    return strcmp(name, "dump_tensors") == 0 || strcmp(name, "initial_latents") == 0 ||
           strcmp(name, "image_path") == 0 || strcmp(name, "mask_path") == 0;
}

static json_t *request_of(const dk_request *request)
{
    json_t *object = json_object();
    for (int i = 0; i < dk_request_parameters.count; i++) {
        const dk_parameter *parameter = &dk_request_parameters.parameters[i];
        if (!is_left_out(parameter->name)) {
            json_object_set_new(object, parameter->name,
                                dk_parameter_get_json(parameter, request));
        }
    }
    return object;
}

static dk_status sum_of(char hex[DK_SHA256_HEX_BYTES], const void *bytes, size_t size,
                        dk_error *err)
{
    dk_digest sum = {0};
    DK_TRY(dk_sha256_init(&sum, err));
    dk_digest_update(&sum, bytes, size);
    dk_digest_final(&sum, hex);
    return DK_OK;
}

/* facts is taken. */
static dk_status digest(char hex[DK_SHA256_HEX_BYTES], json_t *facts, dk_error *err)
{
    char *text = json_dumps(facts, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    json_decref(facts);
    if (text == NULL) {
        return dk_fail(err, DK_INVALID, "a text of the request or the options is not UTF-8");
    }
    dk_status status = sum_of(hex, text, strlen(text), err);
    free(text);
    return status;
}

/* A file by its name, its size, and what is a third into it: as far as it has to be read to
   tell trained weights from others, wherever they lie. */
static dk_status file_of(json_t **out, const char *path, dk_error *err)
{
    char piece[4096] = {0}, hex[DK_SHA256_HEX_BYTES];
    dk_file_stamp stamp = dk_file_stamp_of(path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? pread(fd, piece, sizeof piece, (off_t)(stamp.bytes / 3)) : -1;
    if (fd >= 0) {
        close(fd);
    }
    if (got < 0) {
        return dk_fail(err, DK_IO, "%s: %s", path, strerror(errno));
    }
    DK_TRY(sum_of(hex, piece, sizeof piece, err));
    *out = json_pack("[s, I, s]", dk_path_name(path), (json_int_t)stamp.bytes, hex);
    return DK_OK;
}

dk_status dk_model_identity(char hex[DK_SHA256_HEX_BYTES], const dk_engine *engine,
                            dk_error *err)
{
    json_t *files = json_array(), *file;
    char *const *paths = engine->pipeline->weight_files;
    for (size_t i = 0; paths != NULL && paths[i] != NULL; i++) {
        dk_status status = file_of(&file, paths[i], err);
        if (status != DK_OK) {
            json_decref(files);
            return status;
        }
        json_array_append_new(files, file);
    }
    const char *quantization = dk_quantization_name(engine->quantization);
    return digest(hex,
                  json_pack("{s:s, s:s, s:s, s:o}", "pipeline", engine->pipeline->class_name,
                            "dtype", engine->dtype, "quantization", quantization, "files",
                            files),
                  err);
}

/* The text encoder's files are not told from the others: one more prompt is encoded when
   another component changes. */
dk_status dk_text_identity(char hex[DK_SHA256_HEX_BYTES], const dk_engine *engine,
                           dk_error *err)
{
    return digest(hex, json_pack("{s:s, s:o}", "what", "text", "engine", engine_of(engine)),
                  err);
}

dk_status dk_generation_identity(char hex[DK_SHA256_HEX_BYTES], dk_engine *engine,
                                 const dk_request *request, dk_error *err)
{
    dk_file_sums sums;
    DK_TRY(dk_file_sums_read(&sums, request, err));
    json_t *facts =
        json_pack("{s:o, s:o, s:[s, s, s]}", "engine", engine_of(engine), "request",
                  request_of(request), "files", sums.latents, sums.image, sums.mask);
    return digest(hex, facts, err);
}
