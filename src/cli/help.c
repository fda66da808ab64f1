/* The help pages, and docs/parameters.md, from the tables. */
#include <string.h>

#include "base/string.h"
#include "cli/arguments.h"
#include "darkroom/darkroom.h"

enum { NAME_COLUMN = 42, LINE = 100 };

void dk_help(FILE *to)
{
    fprintf(to, "darkroom %s: pictures and videos from open diffusion models\n\n",
            dk_version());
    for (int i = 0; dk_commands[i] != NULL; i++) {
        if (!dk_commands[i]->hidden) {
            fprintf(to, "  darkroom %-10s %s\n", dk_commands[i]->name, dk_commands[i]->summary);
        }
    }
    fprintf(to, "  darkroom %-10s what a command takes, with examples\n", "help NAME");
    fprintf(to, "  darkroom %-10s the version\n\n", "--version");
    fprintf(to, "  darkroom generate --prompt \"a red star on a blue background\"\n");
}

/* Words of `text` in lines that end before LINE, further lines indented. */
static void wrap(FILE *to, const char *text, int column, int indent)
{
    while (*text != '\0') {
        int length = (int)strcspn(text, " ");
        if (column + length + 1 > LINE && column > indent) {
            fprintf(to, "\n%*s", indent, "");
            column = indent;
        }
        fprintf(to, "%s%.*s", column > indent ? " " : "", length, text);
        column += length + (column > indent ? 1 : 0);
        text += length;
        text += *text == ' ' ? 1 : 0;
    }
    fputc('\n', to);
}

static void help_flag(FILE *to, const dk_parameter *parameter)
{
    dk_string line = DK_STRING_EMPTY;
    dk_string_puts(&line, "  ");
    dk_parameter_flag(&line, parameter);
    bool is_bool = parameter->type == DK_PARAMETER_BOOL;
    dk_string_printf(&line, is_bool ? "[=%s]" : " %s", dk_parameter_unit(parameter));
    fputs(line.data, to);
    int column = (int)line.length;
    if (column >= NAME_COLUMN) {
        fputc('\n', to);
        column = 0;
    }
    fprintf(to, "%*s", NAME_COLUMN - column, "");
    dk_string_clear(&line);
    dk_string_printf(&line, "%s (", parameter->help);
    if (parameter->type != DK_PARAMETER_TEXT && !is_bool) {
        dk_parameter_range(&line, parameter);
        dk_string_puts(&line, "; ");
    }
    dk_string_printf(&line, "default: %s", parameter->default_text);
    if (parameter->only_pipeline != NULL) {
        dk_string_printf(&line, "; only %s", parameter->only_pipeline);
    }
    dk_string_putc(&line, ')');
    wrap(to, line.data, NAME_COLUMN, NAME_COLUMN);
    dk_string_release(&line);
}

static void help_exit_codes(FILE *to)
{
    dk_string line = DK_STRING_EMPTY;
    dk_string_puts(&line, "0 done");
    for (int i = 1; i < DK_STATUS_COUNT; i++) {
        dk_string_printf(&line, ", %d %s", dk_status_exit_code((dk_status)i),
                         dk_status_text((dk_status)i));
    }
    fprintf(to, "\nExit codes\n  ");
    wrap(to, line.data, 2, 2);
    dk_string_release(&line);
}

void dk_help_command(FILE *to, const dk_command *command)
{
    fprintf(to, "darkroom %s %s\n\n", command->name, command->usage);
    wrap(to, command->summary, 0, 0);
    if (command->text != NULL) {
        fputc('\n', to);
        wrap(to, command->text, 0, 0);
    }
    for (const dk_flag_group *g = command->groups; g != NULL && g->table != NULL; g++) {
        fprintf(to, "\n%s\n", g->table->title);
        for (int i = 0; i < g->table->count; i++) {
            if (dk_flag_group_has(g, &g->table->parameters[i])) {
                help_flag(to, &g->table->parameters[i]);
            }
        }
    }
    if (command->groups != NULL) {
        fprintf(to, "\n  --flag=value and --flag value are the same.\n");
    }
    fprintf(to, "\nExamples\n%s", command->examples);
    help_exit_codes(to);
}
