/* Sub-commands: a const struct each, one file each, one line each in commands.def. */
#ifndef DK_CLI_COMMAND_H
#define DK_CLI_COMMAND_H

#include <stdio.h>

#include "base/parameter.h"

typedef struct dk_arguments dk_arguments;

/* Flags of a command: a table, or those of its parameters that are listed. */
typedef struct dk_flag_group {
    const dk_parameter_table *table;
    const char *const *only; /* names, NULL-ended; NULL: all */
} dk_flag_group;

typedef struct dk_command {
    const char *name;
    const char *usage;    /* behind the name: "--prompt TEXT [flags]" */
    const char *summary;  /* one line */
    const char *text;     /* what else to know, or NULL */
    const char *examples; /* whole lines */
    bool hidden;          /* not listed in the help */
    int positionals_min, positionals_max;
    const dk_flag_group *groups; /* ended by a NULL table; NULL: no flags but --help */
    dk_status (*run)(const dk_arguments *arguments, dk_error *err);
} dk_command;

extern const dk_command *const dk_commands[]; /* NULL-ended */
const dk_command *dk_command_find(const char *name);

#define DK_COMMAND(name) extern const dk_command dk_command_##name;
#include "cli/commands.def"
#undef DK_COMMAND

/* The parameter of a command's flag in either spelling, and its table; NULL when unknown. */
const dk_parameter *dk_command_parameter(const dk_command *command, const char *name,
                                         const dk_parameter_table **table);
bool dk_flag_group_has(const dk_flag_group *group, const dk_parameter *parameter);

void dk_help(FILE *to);
void dk_help_command(FILE *to, const dk_command *command);

#endif
