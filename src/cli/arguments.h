/* The arguments of a sub-command: settings from a configuration file, then from the command
   line, each bound to its parameter. */
#ifndef DK_CLI_ARGUMENTS_H
#define DK_CLI_ARGUMENTS_H

#include <jansson.h>

#include "cli/command.h"

typedef struct dk_setting {
    const dk_parameter_table *table;
    const dk_parameter *parameter;
    const char *text;   /* borrowed; NULL: json */
    const json_t *json; /* borrowed from the configuration file */
    char *where;        /* owned: "--width", "config.json: width" */
} dk_setting;

struct dk_arguments {
    const dk_command *command;
    dk_setting *settings; /* [count]; a later one wins */
    int count;
    const char **positionals; /* [positional_count], borrowed from argv */
    int positional_count;
    json_t *config; /* owned; NULL: none */
    bool help;
};

/* argv lies behind the command's name and is borrowed until the release. Release also after a
   failure. */
DK_MUST_USE dk_status dk_arguments_parse(dk_arguments *out, const dk_command *command, int argc,
                                         char **argv, dk_error *err);
void dk_arguments_release(dk_arguments *arguments);

/* Sets the fields of `object`, which `table` describes. */
DK_MUST_USE dk_status dk_arguments_apply(const dk_arguments *arguments,
                                         const dk_parameter_table *table, void *object,
                                         dk_error *err);
bool dk_arguments_has(const dk_arguments *arguments, const char *name);

/* A configuration file as an object: JSON when its name ends in .json, else YAML, whose values
   all arrive as strings (*texts). Nested values are refused. Owned. */
DK_MUST_USE dk_status dk_config_load(json_t **out, bool *texts, const char *path,
                                     dk_error *err);

/* ", did you mean --width?" or where to look, for an unknown name. */
void dk_suggest(dk_string *out, const dk_command *command, const char *name, bool as_flag);

#endif
