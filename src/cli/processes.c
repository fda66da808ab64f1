/* Building command lines. */
#include "cli/processes.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"

void dk_command_line_add(dk_command_line *line, const char *word)
{
    size_t count = (size_t)line->count + 2;
    line->words = dk_realloc(line->words, count * sizeof *line->words);
    line->words[line->count++] = dk_strdup(word);
    line->words[line->count] = NULL;
}

/* /proc/self/exe: the same program even when its file was replaced meanwhile. */
void dk_command_line_init(dk_command_line *line, const char *sub_command)
{
    *line = (dk_command_line){0};
    dk_command_line_add(line, "/proc/self/exe");
    dk_command_line_add(line, sub_command);
}

void dk_command_line_add_fields(dk_command_line *line, const dk_parameter_table *table,
                                const void *object)
{
    for (int i = 0; i < table->count; i++) {
        const dk_parameter *parameter = &table->parameters[i];
        json_t *value = dk_parameter_get_json(parameter, object);
        if (!json_is_null(value)) {
            dk_string word = DK_STRING_EMPTY;
            char *shown = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
            dk_parameter_flag(&word, parameter);
            dk_string_printf(&word, "=%s",
                             json_is_string(value) ? json_string_value(value) : shown);
            dk_command_line_add(line, word.data);
            dk_string_release(&word);
            free(shown);
        }
        json_decref(value);
    }
}

void dk_command_line_release(dk_command_line *line)
{
    for (int i = 0; i < line->count; i++) {
        dk_free(line->words[i]);
    }
    dk_free(line->words);
    *line = (dk_command_line){0};
}
