/* Names and formats of result files. */
#include "cli/output.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "media/media.h"

enum { SLUG_BYTES = 40, MAX_TRIES = 100000 };
static const double GIF_MAX_FPS = 50; /* GIF counts in hundredths of a second */

#define AT(field) .offset = offsetof(dk_output_options, field)

static const dk_parameter parameters[] = {
    {.name = "prompt_file_path",
     .type = DK_PARAMETER_TEXT,
     AT(prompt_file_path),
     .max = 4096,
     .unit = "FILE",
     .default_text = "none",
     .help = "prompts, one per line, instead of --prompt; empty lines are passed over"},
    {.name = "output_path",
     .type = DK_PARAMETER_TEXT,
     AT(output_path),
     .max = 4096,
     .unit = "FOLDER",
     .default_text = "outputs",
     .help = "where files go"},
    {.name = "output_file_name",
     .type = DK_PARAMETER_TEXT,
     AT(output_file_name),
     .max = 200,
     .unit = "NAME",
     .default_text = "prompt and seed",
     .help = "file name, with or without extension; replaces an old file; several outputs are "
             "numbered"},
    {.name = "output_format",
     .type = DK_PARAMETER_CHOICE,
     AT(output_format),
     .choices = "png, jpeg, jpg, webp, mp4, webm, gif",
     .default_text = "by --output-file-name, else png for one frame, mp4 for more",
     .help = "file format"},
    {.name = "output_quality",
     .type = DK_PARAMETER_INT,
     AT(output_quality),
     .min = 1,
     .max = 100,
     .default_text = "the format's",
     .help = "quality of jpeg, webp, mp4 and webm"},
    {.name = "save_output",
     .type = DK_PARAMETER_BOOL,
     AT(save_output),
     .default_text = "true",
     .help = "write files; false: compute only"},
    {.name = "perf_dump_path",
     .type = DK_PARAMETER_TEXT,
     AT(perf_dump_path),
     .max = 4096,
     .unit = "FILE",
     .default_text = "none",
     .help = "write the times of stages and steps as JSON"},
    {.name = "explain",
     .type = DK_PARAMETER_BOOL,
     AT(explain),
     .default_text = "false",
     .help = "say on stderr what was chosen and why: attention, quantisation, offload"},
    {.name = "json",
     .type = DK_PARAMETER_BOOL,
     AT(json),
     .default_text = "false",
     .help = "print the result as one JSON object, a failure too"},
    {.name = "config",
     .type = DK_PARAMETER_TEXT,
     AT(config),
     .max = 4096,
     .unit = "FILE",
     .default_text = "none",
     .help = "JSON (*.json) or YAML file of flags, written with - or _; the command line wins"},
};

const dk_parameter_table dk_output_parameters = {
    .title = "Input and output",
    .parameters = parameters,
    .count = sizeof parameters / sizeof *parameters,
};

void dk_output_options_init(dk_output_options *options)
{
    *options = (dk_output_options){.output_path = "outputs", .save_output = true};
}

/* The known extension at the end of a name, or NULL. */
static const char *known_extension(const char *name)
{
    const char *dot = name != NULL ? strrchr(name, '.') : NULL;
    bool known = dot != NULL && dot != name && dk_media_format_check(dot, 1, NULL) == DK_OK;
    return known ? dot + 1 : NULL;
}

static bool same_format(const char *a, const char *b)
{
    a = strcasecmp(a, "jpeg") == 0 ? "jpg" : a;
    b = strcasecmp(b, "jpeg") == 0 ? "jpg" : b;
    return strcasecmp(a, b) == 0;
}

dk_status dk_output_format(const char **extension, const dk_output_options *options, int frames,
                           double fps, dk_error *err)
{
    const char *named = known_extension(options->output_file_name);
    const char *chosen = options->output_format;
    if (named != NULL && chosen != NULL && !same_format(named, chosen)) {
        return dk_fail(err, DK_INVALID,
                       "--output-file-name is '%s', but --output-format is '%s'",
                       options->output_file_name, chosen);
    }
    if (named != NULL) {
        chosen = named;
    } else if (chosen == NULL) {
        chosen = frames == 1 ? "png" : "mp4";
    } else if (strcmp(chosen, "jpeg") == 0) {
        chosen = "jpg";
    }
    dk_status status = dk_media_format_check(chosen, frames, err);
    if (status != DK_OK) {
        return dk_fail_in(err, status, "%s",
                          named != NULL ? "--output-file-name" : "--output-format");
    }
    if (strcasecmp(chosen, "gif") == 0 && fps > GIF_MAX_FPS) {
        return dk_fail(err, DK_INVALID, "--fps is %g, accepted for gif are 1 to %g", fps,
                       GIF_MAX_FPS);
    }
    *extension = chosen;
    return DK_OK;
}

/* The nearest existing folder above a path must take new entries. */
static dk_status check_creatable(const char *flag, const char *path, dk_error *err)
{
    char *at = dk_strdup(path[0] != '\0' ? path : ".");
    while (!dk_path_exists(at)) {
        char *slash = strrchr(at, '/');
        if (slash == NULL) {
            memcpy(at, ".", 2); /* at holds at least one character */
        } else if (slash == at) {
            at[1] = '\0';
        } else {
            *slash = '\0';
        }
    }
    dk_status status = DK_OK;
    if (!dk_path_is_folder(at)) {
        status = dk_fail(err, DK_IO, "%s is '%s', but %s is not a folder", flag, path, at);
    } else if (access(at, W_OK | X_OK) != 0) {
        status = dk_fail(err, DK_IO, "%s is '%s', but %s cannot be written: %s", flag, path, at,
                         strerror(errno));
    }
    dk_free(at);
    return status;
}

dk_status dk_output_check_file(const char *flag, const char *path, dk_error *err)
{
    const char *name = dk_path_name(path);
    char *folder = name == path ? dk_strdup(".") : dk_strndup(path, (size_t)(name - path));
    dk_status status = DK_OK;
    if (name[0] == '\0' || dk_path_is_folder(path)) {
        status =
            dk_fail(err, DK_INVALID, "%s is '%s', accepted is the path of a file", flag, path);
    } else if (!dk_path_is_folder(folder)) {
        status = dk_fail(err, DK_NOT_FOUND, "%s is '%s', but there is no folder %s", flag, path,
                         folder);
    } else {
        status = check_creatable(flag, folder, err);
    }
    dk_free(folder);
    return status;
}

dk_status dk_output_check(const dk_output_options *options, int frames, double fps,
                          dk_error *err)
{
    const char *extension;
    if (options->perf_dump_path != NULL) {
        DK_TRY(dk_output_check_file("--perf-dump-path", options->perf_dump_path, err));
    }
    if (!options->save_output) {
        return DK_OK;
    }
    if (options->output_file_name != NULL &&
        !dk_path_is_inside(options->output_file_name, false)) {
        return dk_fail(err, DK_INVALID, "--output-file-name is '%s', accepted is a plain name",
                       options->output_file_name);
    }
    DK_TRY(dk_output_format(&extension, options, frames, fps, err));
    return check_creatable("--output-path", options->output_path, err);
}

/* The prompt's letters and digits in ASCII, small, joined by '-', cut between words. */
static void append_slug(dk_string *out, const char *prompt)
{
    size_t start = out->length, cut = 0;
    for (const char *c = prompt; *c != '\0' && out->length - start < SLUG_BYTES; c++) {
        if (isalnum((unsigned char)*c) && (unsigned char)*c < 0x80) {
            dk_string_putc(out, (char)tolower((unsigned char)*c));
        } else if (out->length > start && out->data[out->length - 1] != '-') {
            cut = out->length;
            dk_string_putc(out, '-');
        }
    }
    bool whole = out->length - start < SLUG_BYTES;
    if (out->length > start && out->data[out->length - 1] == '-') {
        out->data[--out->length] = '\0';
    } else if (!whole && cut > start) {
        out->length = cut;
        out->data[cut] = '\0';
    }
    if (out->length == start) {
        dk_string_puts(out, "output");
    }
}

/* Gives a finished file its name unless there is a file of that name (*taken). */
static dk_status publish_new(const char *from, const char *to, bool *taken, dk_error *err)
{
    *taken = false;
    if (link(from, to) == 0) {
        unlink(from);
        return DK_OK;
    }
    int cause = errno;
    *taken = cause == EEXIST || dk_path_exists(to);
    if (*taken) {
        return DK_OK;
    }
    if (cause == EPERM || cause == ENOTSUP || cause == ENOSYS || cause == EMLINK) {
        return dk_file_publish(from, to, err); /* a file system without links */
    }
    return dk_fail(err, DK_IO, "%s: %s", to, strerror(cause));
}

/* Saves under the first free name of stem.ext, stem-2.ext, … */
static dk_status save_new(dk_string *path, const char *stem, const char *extension, int quality,
                          const dk_result *result, int output, dk_error *err)
{
    dk_string finished = DK_STRING_EMPTY;
    const char *name = dk_path_name(stem);
    dk_string_append(&finished, stem, (size_t)(name - stem));
    dk_string_printf(&finished, ".%s.%ld.new.%s", name, (long)getpid(), extension);
    dk_status status = dk_result_save(result, output, finished.data, quality, err);
    bool taken = true;
    for (int i = 1; status == DK_OK && taken && i < MAX_TRIES; i++) {
        dk_string_clear(path);
        dk_string_puts(path, stem);
        if (i > 1) {
            dk_string_printf(path, "-%d", i);
        }
        dk_string_printf(path, ".%s", extension);
        status = publish_new(finished.data, path->data, &taken, err);
    }
    if (status == DK_OK && taken) {
        status =
            dk_fail(err, DK_IO, "%s.%s: no free name up to -%d", stem, extension, MAX_TRIES);
    }
    if (status != DK_OK) {
        unlink(finished.data);
    }
    dk_string_release(&finished);
    return status;
}

dk_status dk_output_save(char **path, const dk_output_options *options, const dk_result *result,
                         int output, const char *prompt, int index, int count, dk_error *err)
{
    const char *extension, *name = options->output_file_name, *folder = options->output_path;
    DK_TRY(dk_output_format(&extension, options, result->frames, result->fps, err));
    DK_TRY(dk_make_folders(folder[0] != '\0' ? folder : ".", err));
    dk_string stem = DK_STRING_EMPTY, file = DK_STRING_EMPTY;
    dk_string_puts(&stem, folder[0] != '\0' ? folder : ".");
    if (stem.data[stem.length - 1] != '/') {
        dk_string_putc(&stem, '/');
    }
    dk_status status;
    if (name != NULL) {
        const char *given = known_extension(name);
        dk_string_append(&stem, name,
                         given != NULL ? (size_t)(given - 1 - name) : strlen(name));
        if (count > 1) {
            dk_string_printf(&stem, "-%d", index);
        }
        dk_string_printf(&file, "%s.%s", stem.data, extension);
        status = dk_result_save(result, output, file.data, options->output_quality, err);
    } else {
        append_slug(&stem, prompt);
        dk_string_printf(&stem, "-%llu", (unsigned long long)result->seeds[output]);
        status =
            save_new(&file, stem.data, extension, options->output_quality, result, output, err);
    }
    if (status == DK_OK) {
        *path = dk_string_take(&file);
    }
    dk_string_release(&file);
    dk_string_release(&stem);
    return status;
}
