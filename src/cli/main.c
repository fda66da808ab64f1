/* The command `darkroom`: finds the sub-command. */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "darkroom/darkroom.h"

static void help(FILE *to)
{
    fprintf(to,
            "darkroom %s: pictures and videos from open diffusion models\n\n"
            "  darkroom generate --prompt TEXT   make a video, or a picture (--num-frames 1)\n"
            "  darkroom generate --help          its flags\n"
            "  darkroom bench --help             how fast this machine is\n"
            "  darkroom --version\n",
            dk_version());
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    if (strcmp(command, "generate") == 0) {
        return dk_cli_generate(argc - 2, argv + 2);
    }
    if (strcmp(command, "bench") == 0) {
        return dk_cli_bench(argc - 2, argv + 2);
    }
    if (strcmp(command, "--version") == 0) {
        printf("darkroom %s\n", dk_version());
        return 0;
    }
    if (strcmp(command, "--help") == 0 || strcmp(command, "help") == 0) {
        help(stdout);
        return 0;
    }
    if (argc > 1) {
        fprintf(stderr, "darkroom: '%s' is not a sub-command\n", command);
    }
    help(stderr);
    return dk_status_exit_code(DK_INVALID);
}
