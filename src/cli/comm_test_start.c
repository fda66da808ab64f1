/* Starting the ranks of comm-test, and making one answer of theirs. */
#define _GNU_SOURCE /* pipe2, environ */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/process.h"
#include "base/string.h"
#include "cli/comm_test.h"
#include "cli/launchers.h"

/* After the first rank has ended the others have a deadline, and this. */
static const double PATIENCE_MS = 20e3;
enum { PROGRAM_BYTES = 4096 };

typedef struct child {
    pid_t pid; /* 0: it has ended */
    int fd;    /* -1: it tells nothing more */
    int code;  /* as waitpid gives it */
    dk_string told;
    json_t *answer; /* owned; NULL: none */
} child;

typedef struct ranks {
    dk_rank_team team; /* where they meet */
    child children[DK_COMM_MOST_RANKS];
    int count;
} ranks;

enum { TEXTS = 5 };

static void list_arguments(dk_string texts[], const dk_comm_test_flags *flags)
{
    dk_string_printf(&texts[0], "--backend=%s", flags->backend);
    dk_string_printf(&texts[1], "--max-bytes=%d", flags->max_bytes);
    dk_string_printf(&texts[2], "--deadline-s=%g", flags->deadline_s);
    dk_string_printf(&texts[3], "--device=%s", flags->device);
    dk_string_printf(&texts[4], "--inject=%s", flags->inject != NULL ? flags->inject : "");
}

static dk_status find_program(char program[PROGRAM_BYTES], dk_error *err)
{
    ssize_t length = readlink("/proc/self/exe", program, PROGRAM_BYTES - 1);
    program[length > 0 ? length : 0] = '\0';
    return length > 0 ? DK_OK : dk_fail(err, DK_IO, "/proc/self/exe: %s", strerror(errno));
}

/* Before the ranks start: where they meet, and whom they answer. */
static dk_status prepare(ranks *r, dk_error *err)
{
    char parent[16];
    snprintf(parent, sizeof parent, "%d", (int)getpid());
    setenv(DK_COMM_TEST_PARENT, parent, 1);
    return dk_launcher_arrange(&r->team, err);
}

static dk_status start_child(child *c, const char *const *argv, dk_error *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return dk_fail(err, DK_IO, "a pipe: %s", strerror(errno));
    }
    dk_status status = dk_process_start(&c->pid, argv, fds[1], false, err);
    close(fds[1]);
    c->fd = fds[0];
    return status;
}

static void look_for_ends(ranks *r, double *end_ms, double deadline_s)
{
    for (int i = 0; i < r->count; i++) {
        child *c = &r->children[i];
        if (c->pid > 0 && waitpid(c->pid, &c->code, WNOHANG) == c->pid) {
            c->pid = 0;
            if (*end_ms == 0) {
                *end_ms = dk_now_ms() + 2.5e3 * deadline_s + PATIENCE_MS;
            }
        }
    }
}

static void read_child(child *c)
{
    char bytes[4096];
    ssize_t got = read(c->fd, bytes, sizeof bytes);
    if (got > 0) {
        dk_string_append(&c->told, bytes, (size_t)got);
    } else if (got == 0 || errno != EINTR) {
        close(c->fd);
        c->fd = -1;
    }
}

/* Until all have ended; those that do not are killed. */
static void wait_for_children(ranks *r, double deadline_s)
{
    enum { LOOK_MS = 20 };
    double end_ms = 0;
    for (bool open = true; open;) {
        struct pollfd polled[DK_COMM_MOST_RANKS];
        open = false;
        for (int i = 0; i < r->count; i++) {
            polled[i] = (struct pollfd){.fd = r->children[i].fd, .events = POLLIN};
            open = open || r->children[i].fd >= 0 || r->children[i].pid > 0;
        }
        poll(polled, (nfds_t)r->count, LOOK_MS);
        for (int i = 0; i < r->count; i++) {
            if (r->children[i].fd >= 0 && polled[i].revents != 0) {
                read_child(&r->children[i]);
            }
        }
        look_for_ends(r, &end_ms, deadline_s);
        for (int i = 0; end_ms > 0 && dk_now_ms() > end_ms && i < r->count; i++) {
            if (r->children[i].pid > 0) {
                kill(r->children[i].pid, SIGKILL);
            }
        }
    }
}

static dk_status status_of(int number)
{
    return number > DK_OK && number < DK_STATUS_COUNT ? (dk_status)number : DK_INTERNAL;
}

/* What one rank has to say, behind what others have; the same thing is said once. */
static void add_failure(dk_string *all, dk_status *status, int rank, const child *c)
{
    dk_string text = DK_STRING_EMPTY;
    const char *message = json_string_value(json_object_get(c->answer, "message"));
    int told = (int)json_integer_value(json_object_get(c->answer, "status"));
    if (WIFSIGNALED(c->code)) {
        dk_string_printf(&text, "rank %d was ended by signal %d (%s)", rank, WTERMSIG(c->code),
                         strsignal(WTERMSIG(c->code)));
    } else if (message != NULL && told != DK_OK) {
        bool known = all->length > 0 && strstr(all->data, message) != NULL;
        if (!known) {
            dk_string_printf(&text, "rank %d: %s", rank, message);
        }
        *status = *status == DK_OK || *status == DK_NETWORK ? status_of(told) : *status;
    } else if (c->code != 0 || c->answer == NULL) {
        dk_string_printf(&text, "rank %d ended with code %d", rank, WEXITSTATUS(c->code));
    }
    if (text.length > 0) {
        dk_string_printf(all, "%s%s", all->length > 0 ? "; " : "", text.data);
        *status = *status == DK_OK ? DK_NETWORK : *status;
    }
    dk_string_release(&text);
}

static dk_status sum_up(json_t **report, ranks *r, dk_error *err)
{
    dk_string failures = DK_STRING_EMPTY;
    dk_status status = DK_OK;
    for (int i = 0; i < r->count; i++) {
        child *c = &r->children[i];
        c->answer = json_loads(dk_string_text(&c->told), 0, NULL);
        add_failure(&failures, &status, i, c);
    }
    *report = json_incref(json_object_get(r->children[0].answer, "report"));
    if (status != DK_OK) {
        status = dk_fail(err, status, "%s", failures.data);
    }
    dk_string_release(&failures);
    return status;
}

dk_status dk_comm_test_start(json_t **report, const dk_comm_test_flags *flags, dk_error *err)
{
    ranks *r = dk_alloc(sizeof *r);
    char program[PROGRAM_BYTES];
    dk_string texts[TEXTS] = {{0}};
    list_arguments(texts, flags);
    const char *argv[] = {program,
                          "comm-test",
                          texts[0].data,
                          texts[1].data,
                          texts[2].data,
                          texts[3].data,
                          flags->inject != NULL ? texts[4].data : NULL,
                          NULL};
    dk_status status = find_program(program, err);
    if (status == DK_OK) {
        status = prepare(r, err);
    }
    for (int i = 0; i < flags->num_gpus && status == DK_OK; i++) {
        r->children[i].fd = -1;
        dk_launcher_tell(&r->team, i, flags->num_gpus);
        status = start_child(&r->children[i], argv, err);
        r->count += status == DK_OK;
    }
    if (status == DK_OK) {
        wait_for_children(r, flags->deadline_s);
        status = sum_up(report, r, err);
    }
    for (int i = 0; i < r->count; i++) {
        dk_process_kill(&r->children[i].pid);
        dk_string_release(&r->children[i].told);
        json_decref(r->children[i].answer);
    }
    for (int i = 0; i < TEXTS; i++) {
        dk_string_release(&texts[i]);
    }
    dk_free(r);
    return status;
}

dk_status dk_comm_test_become_mpirun(const dk_comm_test_flags *flags, dk_error *err)
{
    char program[PROGRAM_BYTES], count[16];
    dk_string texts[TEXTS] = {{0}};
    DK_TRY(find_program(program, err));
    list_arguments(texts, flags);
    snprintf(count, sizeof count, "%d", flags->num_gpus);
    const char *argv[15] = {
        "mpirun",      "--oversubscribe", "--bind-to", "none",        "-n",
        count,         program,           "comm-test", texts[0].data, texts[1].data,
        texts[2].data, texts[3].data,     NULL};
    int at = 12;
    if (flags->inject != NULL) {
        argv[at++] = texts[4].data;
    }
    if (flags->json) {
        argv[at] = "--json";
    }
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    int code = errno;
    for (int i = 0; i < TEXTS; i++) {
        dk_string_release(&texts[i]);
    }
    return dk_fail(err, DK_NOT_FOUND,
                   "mpirun cannot be started: %s (Debian's package openmpi-bin has it)",
                   strerror(code));
}

void dk_comm_test_tell(int rank, dk_status status, const dk_error *err, json_t *report)
{
    json_t *answer =
        json_pack("{s:i, s:i, s:s, s:O?}", "rank", rank, "status", (int)status, "message",
                  status != DK_OK ? err->message : "", "report", report);
    json_dumpfd(answer, DK_PROCESS_FD, JSON_COMPACT);
    json_decref(answer);
    close(DK_PROCESS_FD);
}
