/* darkroom parameters: docs/parameters.md from the tables (tools/check_parameters compares). */
#include <string.h>

#include "base/string.h"
#include "cli/arguments.h"

static void print_cell(const char *text)
{
    for (; *text != '\0'; text++) {
        printf(*text == '|' ? "\\%c" : "%c", *text);
    }
}

static void print_row(const dk_parameter *parameter)
{
    dk_string text = DK_STRING_EMPTY;
    dk_parameter_flag(&text, parameter);
    printf("| `%s` | `%s` | ", text.data, parameter->name);
    dk_string_clear(&text);
    dk_parameter_range(&text, parameter);
    print_cell(text.data);
    printf(" | ");
    print_cell(parameter->default_text);
    printf(" | ");
    print_cell(parameter->help);
    printf(" | %s |\n", parameter->only_pipeline != NULL ? parameter->only_pipeline : "all");
    dk_string_release(&text);
}

static void print_groups(const dk_command *command, const dk_command *base)
{
    for (const dk_flag_group *g = command->groups; g != NULL && g->table != NULL; g++) {
        bool known = false;
        for (const dk_flag_group *b = base->groups; base != command && b->table != NULL; b++) {
            known = known || b->table == g->table;
        }
        if (known) {
            printf("\n%s, of the tables above:", g->table->title);
            for (int i = 0; i < g->table->count; i++) {
                if (dk_flag_group_has(g, &g->table->parameters[i])) {
                    printf(" `%s`", g->table->parameters[i].name);
                }
            }
            printf(".\n");
            continue;
        }
        printf("\n### %s\n\n| flag | key | accepted | default | meaning | models |\n"
               "|---|---|---|---|---|---|\n",
               g->table->title);
        for (int i = 0; i < g->table->count; i++) {
            if (dk_flag_group_has(g, &g->table->parameters[i])) {
                print_row(&g->table->parameters[i]);
            }
        }
    }
}

static dk_status parameters(const dk_arguments *arguments, dk_error *err)
{
    (void)arguments;
    (void)err;
    printf(
        "# Parameters\n\n"
        "Written by `darkroom parameters` from the program's tables; do not edit, run\n"
        "`build/darkroom parameters > docs/parameters.md`.\n\n"
        "Flags take `--name value` or `--name=value`; switches may stand alone. The key is "
        "the\n"
        "spelling in configuration files (`--config`), where dashes are accepted too, and in\n"
        "recipes.\n");
    for (int i = 0; dk_commands[i] != NULL; i++) {
        if (!dk_commands[i]->hidden) {
            printf("\n## darkroom %s %s\n\n%s\n", dk_commands[i]->name, dk_commands[i]->usage,
                   dk_commands[i]->summary);
            print_groups(dk_commands[i], &dk_command_generate);
        }
    }
    return DK_OK;
}

const dk_command dk_command_parameters = {
    .name = "parameters",
    .usage = "",
    .summary = "Prints docs/parameters.md.",
    .examples = "  darkroom parameters > docs/parameters.md\n",
    .hidden = true,
    .run = parameters,
};
