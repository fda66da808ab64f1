/* Starting and ending child processes. */
#define _GNU_SOURCE /* affinity, closefrom */
#include "base/process.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/topology.h"

dk_status dk_process_start(pid_t *out, const char *const *argv, int fd, bool own_group,
                           dk_error *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    pid_t pid;
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes,
                             (short)(flags | (own_group ? POSIX_SPAWN_SETPGROUP : 0)));
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawn_file_actions_init(&actions);
    if (fd >= 0) {
        posix_spawn_file_actions_adddup2(&actions, fd, DK_PROCESS_FD);
    }
    posix_spawn_file_actions_addclosefrom_np(&actions, DK_PROCESS_FD + (fd >= 0 ? 1 : 0));
    int code = posix_spawn(&pid, argv[0], &actions, &attributes, (char *const *)(uintptr_t)argv,
                           environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (code != 0) {
        return dk_fail(err, DK_MEMORY, "%s does not start: %s", argv[0], strerror(code));
    }
    *out = pid;
    return DK_OK;
}

void dk_process_kill(pid_t *pid)
{
    if (*pid > 0) {
        kill(*pid, SIGKILL);
        while (waitpid(*pid, NULL, 0) < 0 && errno == EINTR) {
        }
        *pid = 0;
    }
}

void dk_process_end(pid_t *pid, double grace_ms)
{
    enum { LOOK_MS = 5 };
    double start = dk_now_ms();
    if (*pid > 0) {
        kill(*pid, SIGTERM);
    }
    while (*pid > 0 && !dk_process_has_ended(pid) && dk_now_ms() - start < grace_ms) {
        usleep(LOOK_MS * 1000);
    }
    dk_process_kill(pid);
}

bool dk_process_has_ended(pid_t *pid)
{
    if (*pid > 0 && waitpid(*pid, NULL, WNOHANG) == 0) {
        return false;
    }
    *pid = 0;
    return true;
}

dk_status dk_process_bind(int parent, dk_error *err)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return getppid() == parent
               ? DK_OK
               : dk_fail(err, DK_CANCELLED, "the parent process %d is gone", parent);
}

double dk_process_resident_bytes(void)
{
    long total = 0, resident = 0;
    char line[128];
    FILE *file = fopen("/proc/self/statm", "re");
    bool read = file != NULL && fgets(line, sizeof line, file) != NULL &&
                sscanf(line, "%ld %ld", &total, &resident) == 2;
    if (file != NULL) {
        fclose(file);
    }
    return read ? (double)resident * (double)sysconf(_SC_PAGESIZE) : 0;
}

dk_status dk_process_watch_ends(int *fd, dk_error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    *fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return *fd >= 0 ? DK_OK : dk_fail(err, DK_IO, "signals cannot be watched");
}

void dk_process_share_cores(int index, int of)
{
    dk_topology topology;
    unsigned char share[DK_MOST_CPUS];
    cpu_set_t mine;
    CPU_ZERO(&mine);
    dk_topology_read(&topology, "/sys/devices/system", NULL);
    if (of < 2 || topology.count == 0) {
        return;
    }
    dk_topology_share(&topology, index, of, share);
    for (size_t cpu = 0; cpu < DK_MOST_CPUS && cpu < CPU_SETSIZE; cpu++) {
        if (share[cpu]) {
            CPU_SET(cpu, &mine);
        }
    }
    sched_setaffinity(0, sizeof mine, &mine);
}

static void end_at_once(int code, void *context)
{
    (void)context;
    fflush(NULL);
    _exit(code);
}

void dk_process_skip_ends(void)
{
    on_exit(end_at_once, NULL);
}
