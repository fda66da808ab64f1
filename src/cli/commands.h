/* Sub-commands: each takes the arguments behind its name and returns the exit code. */
#ifndef DK_CLI_COMMANDS_H
#define DK_CLI_COMMANDS_H

int dk_cli_generate(int argc, char **argv);
int dk_cli_bench(int argc, char **argv);

#endif
