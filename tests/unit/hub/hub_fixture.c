/* The hub server as a child process. */
#define _XOPEN_SOURCE 700 /* nftw, mkdtemp */
#include "hub_fixture.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"

/* Becomes the server, with its standard input and output on the pipes. */
static void run_server(int input, int output, const char *log)
{
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    execlp("python3", "python3", "tests/unit/hub/hub_server.py", log, (char *)NULL);
    _exit(127);
}

static bool start_server(hub_fixture *fixture)
{
    int input[2], output[2];
    if (pipe(input) != 0 || pipe(output) != 0) {
        return false;
    }
    /* The child must not hold the end whose closing stops it. */
    fcntl(input[1], F_SETFD, FD_CLOEXEC);
    fcntl(output[0], F_SETFD, FD_CLOEXEC);
    fixture->server = fork();
    if (fixture->server == 0) {
        run_server(input[0], output[1], fixture->log);
    }
    close(input[0]);
    close(output[1]);
    fixture->server_input = input[1];
    char line[64] = "";
    ssize_t got = read(output[0], line, sizeof line - 1);
    close(output[0]);
    char *rest = line;
    fixture->hub_port = got > 0 ? (int)strtol(line, &rest, 10) : 0;
    fixture->store_port = (int)strtol(rest, NULL, 10);
    return fixture->hub_port > 0 && fixture->store_port > 0;
}

int hub_start(void **state)
{
    /* A proxy of the environment has no way to this machine's own ports. */
    static const char *const proxies[] = {"http_proxy", "all_proxy", "ALL_PROXY", NULL};
    for (int i = 0; proxies[i] != NULL; i++) {
        unsetenv(proxies[i]);
    }
    const char *base = getenv("TMPDIR");
    hub_fixture *fixture = dk_alloc(sizeof *fixture);
    dk_string text = DK_STRING_EMPTY;
    dk_string_printf(&text, "%s/darkroom-hub-XXXXXX", base != NULL ? base : "/tmp");
    fixture->folder = dk_string_take(&text);
    if (mkdtemp(fixture->folder) == NULL) {
        return -1;
    }
    fixture->log = dk_path_join(fixture->folder, "requests.log");
    if (!start_server(fixture)) {
        return -1;
    }
    dk_string_printf(&text, "http://127.0.0.1:%d", fixture->hub_port);
    fixture->endpoint = dk_string_take(&text);
    *state = fixture;
    return 0;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info, (void)kind, (void)where;
    return remove(path);
}

int hub_stop(void **state)
{
    hub_fixture *fixture = *state;
    if (fixture == NULL) { /* the start failed */
        return 0;
    }
    close(fixture->server_input);
    waitpid(fixture->server, NULL, 0);
    nftw(fixture->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    dk_free(fixture->folder);
    dk_free(fixture->log);
    dk_free(fixture->endpoint);
    dk_free(fixture);
    return 0;
}

int hub_count(const hub_fixture *fixture, const char *first, const char *second)
{
    char *text = NULL;
    size_t size = 0;
    int count = 0;
    if (dk_file_read(&text, &size, fixture->log, 1 << 24, NULL) != DK_OK) {
        return 0;
    }
    for (char *line = text; line != NULL && *line != '\0';) {
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        count += strstr(line, first) != NULL && strstr(line, second) != NULL;
        line = end != NULL ? end + 1 : NULL;
    }
    dk_free(text);
    return count;
}

static int files_counted; /* nftw passes no context */

static int count_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)path, (void)info, (void)where;
    files_counted += kind == FTW_F || kind == FTW_SL;
    return 0;
}

int count_files(const char *folder)
{
    files_counted = 0;
    nftw(folder, count_entry, 16, FTW_PHYS);
    return files_counted;
}
