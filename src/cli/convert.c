/* darkroom convert: a model with its floats in another type. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/arguments.h"
#include "cli/convert_plan.h"
#include "cli/interrupt.h"
#include "cli/models.h"
#include "cli/report.h"
#include "engine/cancel.h"
#include "engine/option_parameters.h"

typedef struct convert_options {
    const char *dtype;
    bool force, json;
} convert_options;

static const dk_parameter parameters[] = {
    {.name = "dtype",
     .type = DK_PARAMETER_CHOICE,
     .offset = offsetof(convert_options, dtype),
     .choices = "bf16, f16, f32",
     .default_text = "bf16",
     .help = "type of the new weights"},
    {.name = "force",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(convert_options, force),
     .default_text = "false",
     .help = "replace OUT, when it exists, with everything inside"},
    {.name = "json",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(convert_options, json),
     .default_text = "false",
     .help = "print the result as one JSON object, a failure too"},
};

static const dk_parameter_table table = {
    .title = "Conversion",
    .parameters = parameters,
    .count = sizeof parameters / sizeof *parameters,
};

/* One conversion. */
typedef struct conversion {
    convert_options options;
    dk_dtype dtype;
    dk_engine_setup setup;
    dk_progress progress;
    char *out;    /* OUT without slashes at its end, owned */
    bool to_file; /* OUT is a file */
    char *temporary;
    dk_convert_plan plan;
    const char *current; /* the file being written */
    uint64_t before;     /* bytes of the files before it */
} conversion;

static void report_bytes(void *context, uint64_t bytes)
{
    conversion *c = context;
    uint64_t done = c->before + bytes;
    done = done < c->plan.new_bytes ? done : c->plan.new_bytes;
    dk_progress_bytes(&c->progress, c->current, done, c->plan.new_bytes);
}

/* Opens the source: a folder, a hub name, or one file. */
static dk_status make_plan(conversion *c, const char *in, dk_error *err)
{
    bool is_file = dk_path_exists(in) && !dk_path_is_folder(in);
    if (is_file && !dk_ends_with(in, ".safetensors")) {
        return dk_fail(err, DK_INVALID,
                       "%s: accepted are a model folder, a hub name, a "
                       ".safetensors file",
                       in);
    }
    if (is_file) {
        const char *name = dk_path_name(in);
        char *folder = name == in ? dk_strdup("./") : dk_strndup(in, (size_t)(name - in));
        c->to_file = dk_ends_with(c->out, ".safetensors");
        dk_status status = dk_convert_plan_make(&c->plan, folder, name, c->dtype, err);
        dk_free(folder);
        return status;
    }
    char *folder;
    DK_TRY(dk_engine_setup_folder(&folder, &c->setup, in, &c->progress, err));
    dk_status status = DK_OK;
    if (dk_path_below(c->out, folder) || dk_path_below(folder, c->out)) {
        status =
            dk_fail(err, DK_INVALID, "OUT %s and IN %s lie inside each other", c->out, folder);
    }
    if (status == DK_OK) {
        status = dk_convert_plan_make(&c->plan, folder, NULL, c->dtype, err);
    }
    dk_free(folder);
    return status;
}

static dk_status check_out(const conversion *c, const char *in, dk_error *err)
{
    struct stat a, b;
    bool exists = dk_path_exists(c->out);
    if (stat(c->out, &a) == 0 && stat(in, &b) == 0 && a.st_dev == b.st_dev &&
        a.st_ino == b.st_ino) {
        return dk_fail(err, DK_INVALID, "OUT and IN are the same: %s", c->out);
    }
    if (exists && !c->to_file && !dk_path_is_folder(c->out)) {
        return dk_fail(err, DK_INVALID, "%s: OUT exists and is no folder", c->out);
    }
    if (exists && !c->to_file && dk_path_exists(in) && dk_path_below(in, c->out)) {
        return dk_fail(err, DK_INVALID, "IN %s lies inside OUT %s", in, c->out);
    }
    bool filled = exists && (c->to_file || !dk_folder_is_empty(c->out));
    if (filled && !c->options.force) {
        return dk_fail(err, DK_INVALID, "%s: OUT exists%s, --force replaces it", c->out,
                       c->to_file ? "" : " and is not empty");
    }
    if (filled && !c->to_file && dk_path_below(".", c->out)) {
        return dk_fail(err, DK_INVALID, "%s: OUT holds the current folder", c->out);
    }
    return DK_OK;
}

/* The folder that OUT lies in must exist and have room. */
static dk_status check_room(const conversion *c, dk_error *err)
{
    const uint64_t spare = 1024 * 1024;
    const char *name = dk_path_name(c->out);
    char *parent =
        name == c->out ? dk_strdup(".") : dk_strndup(c->out, (size_t)(name - c->out));
    struct statvfs room;
    dk_status status = DK_OK;
    if (statvfs(parent, &room) != 0) {
        status = dk_fail(err, DK_IO, "%s: %s", parent, strerror(errno));
    } else if ((uint64_t)room.f_bavail * room.f_frsize < c->plan.new_bytes + spare) {
        status = dk_fail(err, DK_IO, "%s: %.2f GB are needed, %.2f GB are free", parent,
                         (double)(c->plan.new_bytes + spare) / 1e9,
                         (double)((uint64_t)room.f_bavail * room.f_frsize) / 1e9);
    }
    dk_free(parent);
    return status;
}

static dk_status write_item(conversion *c, const dk_convert_item *item, const char *to,
                            const char *from, dk_error *err)
{
    const atomic_bool *cancel = dk_cancel_flag(dk_interrupt_begin());
    if (item->kind == DK_CONVERT_RECAST) {
        dk_recast_options options = dk_convert_options(item, c->dtype);
        options.progress = report_bytes;
        options.progress_context = c;
        options.cancel = cancel;
        return dk_recast_file(to, item->file, &options, from, err);
    }
    if (item->kind == DK_CONVERT_INDEX) {
        char *text = NULL;
        DK_TRY(dk_convert_index(&text, &c->plan, item, err));
        dk_status status = dk_file_write(to, text, strlen(text), err);
        free(text);
        return status;
    }
    return dk_copy_file(to, from, cancel, err);
}

static dk_status write_all(conversion *c, dk_error *err)
{
    for (int i = 0; i < c->plan.files.count; i++) {
        const dk_convert_item *item = &c->plan.items[i];
        if (item->kind == DK_CONVERT_SKIP) {
            char line[300];
            snprintf(line, sizeof line, "%.200s is left out: its format is not read",
                     item->path);
            dk_progress_log(&c->progress, DK_LOG_WARNING, line);
            continue;
        }
        char *from = dk_path_join(c->plan.folder, item->path);
        char *to =
            c->to_file ? dk_strdup(c->temporary) : dk_path_join(c->temporary, item->path);
        char *folder = dk_strndup(to, (size_t)(dk_path_name(to) - to));
        c->current = item->path;
        dk_status status = folder[0] != '\0' ? dk_make_folders(folder, err) : DK_OK;
        if (status == DK_OK) {
            status = write_item(c, item, to, from, err);
        }
        c->before += item->new_bytes;
        dk_free(folder);
        dk_free(to);
        dk_free(from);
        DK_TRY(status);
        DK_TRY(dk_interrupt_check(err));
    }
    return DK_OK;
}

/* OUT gets its name; an old one goes last. */
static dk_status publish(conversion *c, dk_error *err)
{
    char *old = NULL;
    if (!c->to_file && dk_path_exists(c->out)) {
        dk_string name = DK_STRING_EMPTY;
        dk_string_printf(&name, "%s.old", c->temporary);
        old = dk_string_take(&name);
        if (rename(c->out, old) != 0) {
            dk_status status = dk_fail(err, DK_IO, "%s: %s", c->out, strerror(errno));
            dk_free(old);
            return status;
        }
    }
    dk_status status = DK_OK;
    if (rename(c->temporary, c->out) != 0) {
        status = dk_fail(err, DK_IO, "%s: %s", c->out, strerror(errno));
        if (old != NULL && rename(old, c->out) != 0) {
            status = dk_fail_in(err, status, "the old folder is now %s", old);
        }
    } else if (old != NULL) {
        dk_remove_tree(old);
    }
    dk_free(old);
    return status;
}

static void print_result(const conversion *c)
{
    if (c->options.json) {
        json_t *object =
            json_pack("{s:s, s:s, s:I, s:I, s:i}", "path", c->out, "dtype", c->options.dtype,
                      "bytes_before", (json_int_t)c->plan.bytes, "bytes_after",
                      (json_int_t)c->plan.new_bytes, "weight_files", c->plan.recasts);
        if (object != NULL) {
            dk_report_print(object);
            json_decref(object);
        }
    } else {
        printf("%s\n", c->out);
    }
}

static dk_status run_conversion(conversion *c, const char *in, const char *out, dk_error *err)
{
    size_t length = strlen(out);
    while (length > 1 && out[length - 1] == '/') {
        length--;
    }
    if (length == 0) {
        return dk_fail(err, DK_INVALID, "OUT is empty, accepted is the name of a new folder");
    }
    c->out = dk_strndup(out, length);
    c->dtype = strcmp(c->options.dtype, "f32") == 0   ? DK_F32
               : strcmp(c->options.dtype, "f16") == 0 ? DK_F16
                                                      : DK_BF16;
    DK_TRY(make_plan(c, in, err));
    DK_TRY(check_out(c, in, err));
    DK_TRY(check_room(c, err));
    dk_string name = DK_STRING_EMPTY;
    const char *leaf = dk_path_name(c->out);
    dk_string_append(&name, c->out, (size_t)(leaf - c->out));
    dk_string_printf(&name, ".%s.%ld.part", leaf, (long)getpid());
    c->temporary = dk_string_take(&name);
    dk_status status = c->to_file ? DK_OK : dk_make_folders(c->temporary, err);
    if (status == DK_OK) {
        status = write_all(c, err);
    }
    if (status == DK_OK) {
        status = publish(c, err);
    }
    if (status != DK_OK) {
        dk_remove_tree(c->temporary);
    }
    return status;
}

static dk_status convert(const dk_arguments *arguments, dk_error *err)
{
    conversion c = {.options = {.dtype = "bf16"}};
    dk_engine_setup_init(&c.setup);
    dk_interrupt_begin();
    dk_status status = dk_arguments_apply(arguments, &table, &c.options, err);
    if (status == DK_OK) {
        status = dk_arguments_apply(arguments, &dk_option_parameters, &c.setup.options, err);
    }
    dk_progress_init(&c.progress, c.setup.options.log_level);
    if (status == DK_OK) {
        status = run_conversion(&c, arguments->positionals[0], arguments->positionals[1], err);
    }
    dk_progress_end(&c.progress);
    if (status == DK_OK) {
        print_result(&c);
    }
    dk_convert_plan_release(&c.plan);
    dk_engine_setup_release(&c.setup);
    dk_free(c.out);
    dk_free(c.temporary);
    return status;
}

static const char *const option_names[] = {"offline", "hub_cache", "log_level", NULL};
static const dk_flag_group groups[] = {
    {&table, NULL},
    {&dk_option_parameters, option_names},
    {0},
};

const dk_command dk_command_convert = {
    .name = "convert",
    .usage = "[flags] IN OUT",
    .summary = "Writes a copy of a model whose floats have another type.",
    .text =
        "IN is a model folder, a hub name or one .safetensors file; OUT a new folder (or "
        "file). "
        "Shards, names and metadata stay, integers are copied, and what the reference keeps in "
        "f32 of a WanTransformer3DModel (norms, modulation, time embedding) becomes f32. OUT "
        "appears whole or not at all.",
    .examples =
        "  darkroom convert --dtype bf16 Wan-AI/Wan2.1-T2V-1.3B-Diffusers wan-1.3b-bf16\n"
        "  darkroom convert --dtype f32 --force wan-1.3b-bf16 wan-1.3b-f32\n"
        "  darkroom convert --dtype f16 model.safetensors model-f16.safetensors\n",
    .positionals_min = 2,
    .positionals_max = 2,
    .groups = groups,
    .run = convert,
};
