/* Warming up: a short generation of every size that requests are expected to have. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "engine/engine_state.h"

enum { STEPS = 2, MOST_SIDE = 65536 };

static dk_status refuse(const char *text, dk_error *err)
{
    return dk_fail(err, DK_INVALID,
                   "warmup_resolutions is '%.200s', accepted are sizes such as 832x480x81 or "
                   "1024x1024, with commas between them",
                   text);
}

static bool read_number(int *out, const char **text)
{
    char *end;
    long value = strtol(*text, &end, 10);
    if (end == *text || value < 1 || value > MOST_SIDE) {
        return false;
    }
    *out = (int)value;
    *text = end;
    return true;
}

/* The next size of the list; *text moves behind it and its comma. */
static bool read_size(dk_request *request, const char **text)
{
    request->num_frames = 1;
    if (!read_number(&request->width, text) || *(*text)++ != 'x' ||
        !read_number(&request->height, text)) {
        return false;
    }
    if (**text == 'x') {
        (*text)++;
        if (!read_number(&request->num_frames, text)) {
            return false;
        }
    }
    if (**text == ',') {
        (*text)++;
        return **text != '\0';
    }
    return **text == '\0';
}

static dk_status run(dk_engine *engine, const dk_request *request, dk_error *err)
{
    dk_result result = {0};
    double start = dk_now_ms();
    DK_TRY(dk_generate(engine, request, NULL, NULL, &result, err));
    dk_log_info(&engine->log, "warm-up: %d x %d x %d in %.0f ms", result.width, result.height,
                result.frames, dk_now_ms() - start);
    dk_result_release(&result);
    return DK_OK;
}

dk_status dk_engine_warm_up(dk_engine *engine, const dk_engine_options *options, dk_error *err)
{
    bool compile = options->enable_compile || options->enable_torch_compile;
    const char *mode = options->warmup_mode, *text = options->warmup_resolutions;
    bool listed = text != NULL && text[0] != '\0';
    bool wanted = mode != NULL ? strcmp(mode, "server") == 0 : compile || listed;
    dk_request request;
    engine->warm.wanted = mode != NULL && strcmp(mode, "request") == 0;
    if (listed && !wanted) {
        return dk_fail(err, DK_INVALID,
                       "warmup_resolutions are made while loading and warmup_mode is '%s', "
                       "accepted with them is server",
                       mode);
    }
    if (!wanted) {
        return DK_OK;
    }
    dk_request_init(&request, engine);
    request.prompt = "warm-up";
    request.num_inference_steps = STEPS;
    if (!listed) {
        return run(engine, &request, err);
    }
    while (*text != '\0') {
        if (!read_size(&request, &text)) {
            return refuse(options->warmup_resolutions, err);
        }
        dk_status status = run(engine, &request, err);
        if (status != DK_OK) {
            return dk_fail_in(err, status, "warmup_resolutions");
        }
    }
    return DK_OK;
}

static bool is_warm(const dk_warm_sizes *warm, const dk_request *request)
{
    int count = warm->count < DK_WARM_SIZES ? warm->count : DK_WARM_SIZES;
    for (int i = 0; i < count; i++) {
        const struct dk_warm_size *size = &warm->sizes[i];
        if (size->width == request->width && size->height == request->height &&
            size->num_frames == request->num_frames) {
            return true;
        }
    }
    return false;
}

void dk_engine_warm_up_for(dk_engine *engine, const dk_generation *generation)
{
    dk_warm_sizes *warm = &engine->warm;
    if (!warm->wanted || is_warm(warm, generation->request)) {
        return;
    }
    dk_request request = *generation->request;
    request.num_inference_steps = STEPS;
    request.dump_tensors = NULL;
    dk_generation one = {.request = &request, .cancel = generation->cancel};
    double start = dk_now_ms();
    dk_engine_run(engine, &one, 1);
    if (one.status == DK_OK) {
        warm->sizes[warm->count++ % DK_WARM_SIZES] =
            (struct dk_warm_size){request.width, request.height, request.num_frames};
        dk_log_info(&engine->log, "warm-up: %d x %d x %d in %.0f ms", one.result.width,
                    one.result.height, one.result.frames, dk_now_ms() - start);
    }
    dk_result_release(&one.result);
}
