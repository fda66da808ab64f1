/* The command `darkroom`: finds the sub-command, reports its failure. */
#include <signal.h>
#include <string.h>

#include "base/json.h"
#include "cli/arguments.h"
#include "darkroom/darkroom.h"

const dk_command *const dk_commands[] = {
#define DK_COMMAND(name) &dk_command_##name,
#include "cli/commands.def"
#undef DK_COMMAND
    NULL,
};

const dk_command *dk_command_find(const char *name)
{
    for (int i = 0; dk_commands[i] != NULL; i++) {
        if (strcmp(dk_commands[i]->name, name) == 0) {
            return dk_commands[i];
        }
    }
    return NULL;
}

bool dk_flag_group_has(const dk_flag_group *group, const dk_parameter *parameter)
{
    for (int i = 0; group->only != NULL && group->only[i] != NULL; i++) {
        if (strcmp(group->only[i], parameter->name) == 0) {
            return true;
        }
    }
    return group->only == NULL;
}

const dk_parameter *dk_command_parameter(const dk_command *command, const char *name,
                                         const dk_parameter_table **table)
{
    for (const dk_flag_group *g = command->groups; g != NULL && g->table != NULL; g++) {
        const dk_parameter *parameter = dk_parameter_find(g->table, name);
        if (parameter != NULL && dk_flag_group_has(g, parameter)) {
            *table = g->table;
            return parameter;
        }
    }
    return NULL;
}

/* With --json the reader of stdout learns of a failure too. */
static void print_json_error(const dk_error *err)
{
    json_t *object =
        json_pack("{s:{s:s, s:i, s:s}}", "error", "type", dk_status_text(err->status),
                  "exit_code", dk_status_exit_code(err->status), "message", err->message);
    if (object != NULL) { /* NULL: a message that is not UTF-8 */
        json_dumpf(object, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(object);
    }
}

static bool wants_json(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0 || strcmp(argv[i], "--json=true") == 0) {
            return true;
        }
    }
    return false;
}

static int run(const dk_command *command, int argc, char **argv)
{
    dk_arguments arguments;
    dk_error err = {0};
    dk_status status = dk_arguments_parse(&arguments, command, argc, argv, &err);
    if (status == DK_OK && arguments.help) {
        dk_help_command(stdout, command);
    } else if (status == DK_OK) {
        status = command->run(&arguments, &err);
    }
    dk_arguments_release(&arguments);
    if (status != DK_OK && err.message[0] != '\0') {
        fprintf(stderr, "darkroom: %s\n", err.message);
        if (wants_json(argc, argv)) {
            print_json_error(&err);
        }
    }
    if (fflush(stdout) != 0 && status == DK_OK) {
        fprintf(stderr, "darkroom: standard output cannot be written\n");
        status = DK_IO;
    }
    return dk_status_exit_code(status);
}

static int help(int argc, char **argv)
{
    const dk_command *command = argc > 0 ? dk_command_find(argv[0]) : NULL;
    if (command != NULL) {
        dk_help_command(stdout, command);
        return 0;
    }
    dk_help(argc > 0 ? stderr : stdout);
    return argc > 0 ? dk_status_exit_code(DK_INVALID) : 0;
}

static const char *nearest_command(const char *name)
{
    const char *best = NULL;
    int least = 3;
    for (int i = 0; dk_commands[i] != NULL; i++) {
        int distance = dk_name_distance(name, dk_commands[i]->name);
        if (distance < least) {
            best = dk_commands[i]->name;
            least = distance;
        }
    }
    return best;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    const dk_command *command = dk_command_find(name);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of the write */
    if (command != NULL) {
        return run(command, argc - 2, argv + 2);
    }
    if (strcmp(name, "--version") == 0) {
        printf("darkroom %s\n", dk_version());
        return 0;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        return help(argc - 2, argv + 2);
    }
    if (argc > 1) {
        const char *near = nearest_command(name);
        fprintf(stderr, "darkroom: '%.100s' is not a command%s%s%s\n\n", name,
                near != NULL ? ", did you mean " : "", near != NULL ? near : "",
                near != NULL ? "?" : "");
    }
    dk_help(stderr);
    return dk_status_exit_code(DK_INVALID);
}
