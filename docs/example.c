/* A whole program on Darkroom's library: a picture of a prompt, with progress.
     cc docs/example.c -Iinclude -o example (and the library: see docs/CMakeLists.txt)
     ./example models/tiny-wan "a red star on a blue background" star.png */
#include <stdio.h>

#include "darkroom/darkroom.h"

static void on_event(void *context, const dk_event *event)
{
    FILE *to = context;
    if (event->kind == DK_EVENT_STEP) {
        fprintf(to, "step %d of %d, %.0f ms\n", event->step, event->steps, event->ms);
    } else if (event->kind == DK_EVENT_STAGE_END) {
        fprintf(to, "%s took %.1f ms\n", event->stage, event->ms);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: example MODEL_FOLDER PROMPT FILE.png\n");
        return 2;
    }
    dk_engine_options options;
    dk_engine *engine = NULL;
    dk_request request;
    dk_result result = {0};
    dk_error err = {0};

    dk_engine_options_init(&options);
    options.model_path = argv[1];
    dk_status status = dk_engine_open(&engine, &options, &err);
    if (status == DK_OK) {
        dk_request_init(&request, engine);
        request.prompt = argv[2];
        request.num_frames = 1;
        request.num_inference_steps = 8;
        request.seed = 1;
        status = dk_generate(engine, &request, on_event, stderr, &result, &err);
    }
    if (status == DK_OK) {
        status = dk_result_save(&result, 0, argv[3], 0, &err);
    }
    if (status == DK_OK) {
        printf("%s: %d x %d pixels\n%s\n", argv[3], result.width, result.height,
               result.recipes[0]);
    } else {
        fprintf(stderr, "%s: %s\n", dk_status_text(status), err.message);
    }
    dk_result_release(&result);
    dk_engine_close(&engine);
    return dk_status_exit_code(status);
}
