/* Finding models. The library reads no environment; this is where it is read. */
#include "cli/models.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/interrupt.h"
#include "engine/cancel.h"
#include "hub/hub.h"

#ifndef DK_BUILD_MODELS
#define DK_BUILD_MODELS "models"
#endif

/* The folder of the running program, or "." */
static char *program_folder(void)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0) {
        return dk_strdup(".");
    }
    path[length] = '\0';
    *strrchr(path, '/') = '\0';
    return dk_strdup(path);
}

/* folder/tail/tiny-wan when that is a model folder (owned), else NULL and a note in `tried`. */
static char *look(const char *folder, const char *tail, dk_string *tried)
{
    dk_string path = DK_STRING_EMPTY;
    dk_string_printf(&path, "%s%s/" DK_EMBEDDED_MODEL, folder, tail);
    char *index = dk_path_join(path.data, "model_index.json");
    bool found = dk_path_exists(index);
    char *real = found ? realpath(path.data, NULL) : NULL;
    if (real == NULL) {
        dk_string_printf(tried, "%s%s", tried->length > 0 ? ", " : "", path.data);
    }
    char *result = real != NULL ? dk_strdup(real) : NULL;
    free(real);
    dk_free(index);
    dk_string_release(&path);
    return result;
}

dk_status dk_find_embedded_model(char **out, dk_error *err)
{
    const char *told = getenv("DARKROOM_MODELS");
    dk_string tried = DK_STRING_EMPTY;
    char *program = program_folder(), *found = NULL;
    if (told != NULL && told[0] != '\0') {
        found = look(told, "", &tried);
    } else {
        static const char *const tails[] = {"/../share/darkroom/models", "/../models"};
        for (int i = 0; i < 2 && found == NULL; i++) {
            found = look(program, tails[i], &tried);
        }
        if (found == NULL) {
            found = look(DK_BUILD_MODELS, "", &tried);
        }
    }
    dk_status status = DK_OK;
    if (found == NULL) {
        status =
            dk_fail(err, DK_NOT_FOUND,
                    "the built-in model was not found, looked for %s; set DARKROOM_MODELS, "
                    "or give --model-path",
                    dk_string_text(&tried));
    } else {
        *out = found;
    }
    dk_string_release(&tried);
    dk_free(program);
    return status;
}

/* The hub's cache as huggingface_hub finds it: HF_HUB_CACHE, HF_HOME/hub, else
   ~/.cache/huggingface/hub. */
static char *hub_cache(void)
{
    const char *cache = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME");
    const char *user = getenv("HOME");
    if (cache != NULL && cache[0] != '\0') {
        return dk_strdup(cache);
    }
    if (home != NULL && home[0] != '\0') {
        return dk_path_join(home, "hub");
    }
    return dk_path_join(user != NULL ? user : ".", ".cache/huggingface/hub");
}

static bool is_on(const char *value)
{
    static const char *const words[] = {"1", "true", "TRUE", "True", "yes", "YES", "on", "ON"};
    for (size_t i = 0; value != NULL && i < sizeof words / sizeof *words; i++) {
        if (strcmp(value, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

void dk_engine_setup_init(dk_engine_setup *setup)
{
    *setup = (dk_engine_setup){.cache = hub_cache(), .cores = {0, 1}};
    dk_engine_options_init(&setup->options);
    setup->options.hub_cache = setup->cache;
    setup->options.hub_endpoint = getenv("HF_ENDPOINT");
    setup->options.hub_token = getenv("HF_TOKEN");
    setup->options.offline = is_on(getenv("HF_HUB_OFFLINE"));
}

void dk_engine_setup_release(dk_engine_setup *setup)
{
    dk_rank_team_end(&setup->team);
    dk_free(setup->cache);
    dk_free(setup->embedded);
    *setup = (dk_engine_setup){0};
}

/* No model, or the built-in one by its name where no folder has that name. */
static bool is_embedded(const char *model)
{
    return model == NULL || (strcmp(model, DK_EMBEDDED_MODEL) == 0 && !dk_path_exists(model));
}

dk_status dk_engine_setup_join(dk_engine_setup *setup, dk_error *err)
{
    if (!setup->joined) {
        DK_TRY(dk_rank_team_start(&setup->team, &setup->options, setup->cores,
                                  setup->takes_requests, err));
        setup->joined = true;
    }
    return DK_OK;
}

dk_status dk_engine_setup_open(dk_engine **out, dk_engine_setup *setup, dk_progress *progress,
                               dk_error *err)
{
    dk_engine_options *options = &setup->options;
    DK_TRY(dk_engine_setup_join(setup, err));
    if (is_embedded(options->model_path)) {
        DK_TRY(dk_find_embedded_model(&setup->embedded, err));
        options->model_path = setup->embedded;
        options->model_name = DK_EMBEDDED_MODEL;
    }
    options->log = dk_progress_log;
    options->log_context = progress;
    options->download = dk_progress_bytes;
    options->download_context = progress;
    options->cancel = dk_interrupt_begin();
    return dk_engine_open(out, options, err);
}

dk_status dk_engine_setup_follow(dk_engine_setup *setup, dk_error *err)
{
    dk_engine *engine;
    dk_progress progress;
    dk_progress_init(&progress, setup->options.log_level);
    DK_TRY(dk_engine_setup_open(&engine, setup, &progress, err));
    dk_status status = dk_engine_follow(engine, err);
    dk_engine_close(&engine);
    return status;
}

static void report_download(void *context, const char *file, uint64_t done, uint64_t total,
                            uint64_t all_done, uint64_t all_total)
{
    (void)done;
    (void)total;
    dk_progress_bytes(context, file, all_done, all_total);
}

dk_status dk_engine_setup_folder(char **out, dk_engine_setup *setup, const char *model,
                                 dk_progress *progress, dk_error *err)
{
    const dk_engine_options *options = &setup->options;
    if (is_embedded(model)) {
        return dk_find_embedded_model(out, err);
    }
    const dk_log log = {
        .write = dk_progress_log, .context = progress, .level = options->log_level};
    const dk_hub_options hub = {.cache_folder = options->hub_cache,
                                .endpoint = options->hub_endpoint,
                                .token = options->hub_token,
                                .offline = options->offline,
                                .log = &log,
                                .progress = report_download,
                                .progress_context = progress,
                                .cancel = dk_cancel_flag(dk_interrupt_begin())};
    return dk_hub_resolve(out, model, &hub, err);
}
