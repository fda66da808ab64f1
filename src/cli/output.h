/* Where results go: formats, file names, saving. */
#ifndef DK_CLI_OUTPUT_H
#define DK_CLI_OUTPUT_H

#include "base/parameter.h"
#include "darkroom/darkroom.h"

/* Fields of the "Input and output" table. */
typedef struct dk_output_options {
    const char *prompt_file_path;
    const char *output_path, *output_file_name, *output_format;
    int output_quality; /* 0: the format's */
    bool save_output;
    const char *perf_dump_path;
    bool explain;
    bool json;
    const char *config;
} dk_output_options;

extern const dk_parameter_table dk_output_parameters;
void dk_output_options_init(dk_output_options *options);

/* The extension that the options and the number of frames choose ("png", "jpg", …); static or
   borrowed from the options. Fails when it cannot hold these frames or is in conflict with the
   file's name. */
DK_MUST_USE dk_status dk_output_format(const char **extension, const dk_output_options *options,
                                       int frames, double fps, dk_error *err);

/* Everything that can be known before the work: format, name, and folders that can be written.
 */
DK_MUST_USE dk_status dk_output_check(const dk_output_options *options, int frames, double fps,
                                      dk_error *err);
/* A file can be made there: its folder exists and may be written. `flag` names it. */
DK_MUST_USE dk_status dk_output_check_file(const char *flag, const char *path, dk_error *err);

/* Saves one output and returns its path (owned). With a file name of the user's, `index` of
   `count` files is appended when there are several, and an old file is replaced. Otherwise the
   name is made of the prompt and the seed, and no file is ever replaced. */
DK_MUST_USE dk_status dk_output_save(char **path, const dk_output_options *options,
                                     const dk_result *result, int output, const char *prompt,
                                     int index, int count, dk_error *err);

#endif
