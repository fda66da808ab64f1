/* Command lines of the processes that serving starts: this program again, with another
   sub-command and the same settings. */
#ifndef DK_CLI_PROCESSES_H
#define DK_CLI_PROCESSES_H

#include "base/parameter.h"

typedef struct dk_command_line {
    char **words; /* [count + 1], NULL-ended, owned */
    int count;
} dk_command_line;

void dk_command_line_init(dk_command_line *line, const char *sub_command);
void dk_command_line_add(dk_command_line *line, const char *word);
/* "--name=value" for every field of `object` that is set. */
void dk_command_line_add_fields(dk_command_line *line, const dk_parameter_table *table,
                                const void *object);
void dk_command_line_release(dk_command_line *line);

#endif
