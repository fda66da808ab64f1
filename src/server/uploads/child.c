/* The child that decodes. It first gives up everything that it does not need. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "server/uploads/protocol.h"
#include "server/uploads/uploads.h"

enum { MEBI = 1024 * 1024, CHANNELS = 3, WHERE_BYTES = 16 };

static bool write_whole(int fd, const void *data, size_t size)
{
    const char *p = data;
    while (size > 0) {
        ssize_t written = write(fd, p, size);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return false;
        }
        p += written;
        size -= (size_t)written;
    }
    return true;
}

static int append_text(const char *bytes, size_t size, void *context)
{
    dk_string_append(context, bytes, size);
    return 0;
}

/* Ends the process at once: nothing that libraries do at exit is allowed. No JSON object is
   made, since jansson opens a file to seed its hashes. */
static _Noreturn void end(dk_status status, const dk_error *err)
{
    if (status != DK_OK) {
        dk_string line = DK_STRING_EMPTY;
        json_t *message = json_string(err->message);
        dk_string_puts(&line, "{\"message\": ");
        json_dump_callback(message, append_text, &line, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
        dk_string_puts(&line, "}\n");
        write_whole(STDOUT_FILENO, line.data, line.length);
    }
    for (;;) { /* not _exit: sanitizers do things there, too */
        syscall(SYS_exit_group, dk_status_exit_code(status));
    }
}

/* Bytes of address space that the program and its libraries take. */
static rlim_t address_space(void)
{
    char text[64] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    unsigned long pages = got > 0 ? strtoul(text, NULL, 10) : 0;
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static dk_status limit(__rlimit_resource_t resource, rlim_t value, dk_error *err)
{
    /* At the hard limit of time the kernel kills without telling why. */
    const struct rlimit both = {value, resource == RLIMIT_CPU ? value + 1 : value};
    return setrlimit(resource, &both) == 0
               ? DK_OK
               : dk_fail(err, DK_INTERNAL, "the decoder cannot limit itself: %s",
                         strerror(errno));
}

static dk_status limit_all(const dk_upload_limits *limits, dk_error *err)
{
    rlim_t before = address_space();
    rlim_t output = sizeof(dk_upload_header) + (rlim_t)limits->max_pixels * (CHANNELS + 1);
    if (before == 0) {
        return dk_fail(err, DK_INTERNAL, "the decoder cannot read /proc/self/statm");
    }
    DK_TRY(limit(RLIMIT_AS, before + (rlim_t)limits->memory_mb * MEBI, err));
    DK_TRY(limit(RLIMIT_CPU, (rlim_t)limits->seconds, err));
    DK_TRY(limit(RLIMIT_FSIZE, output, err));
    DK_TRY(limit(RLIMIT_CORE, 0, err));
    DK_TRY(limit(RLIMIT_NPROC, 0, err));
    return limit(RLIMIT_NOFILE, DK_UPLOAD_OUTPUT_FD + 1, err);
}

typedef struct rule {
    int call;
    unsigned count; /* of conditions */
    struct scmp_arg_cmp conditions[2];
} rule;

/* Everything that is not listed here ends the process: no files are opened, no sockets, no
   processes, no memory becomes code. */
static int add_rules(scmp_filter_ctx filter)
{
    const rule rules[] = {
        {SCMP_SYS(exit_group), 0, {{0}}},
        {SCMP_SYS(brk), 0, {{0}}},
        {SCMP_SYS(munmap), 0, {{0}}},
        {SCMP_SYS(mremap), 0, {{0}}},
        {SCMP_SYS(madvise), 0, {{0}}},
        {SCMP_SYS(futex), 0, {{0}}},
        {SCMP_SYS(read), 1, {SCMP_A0(SCMP_CMP_EQ, DK_UPLOAD_INPUT_FD, 0)}},
        {SCMP_SYS(write), 1, {SCMP_A0(SCMP_CMP_EQ, DK_UPLOAD_OUTPUT_FD, 0)}},
        {SCMP_SYS(write), 1, {SCMP_A0(SCMP_CMP_EQ, STDOUT_FILENO, 0)}},
        {SCMP_SYS(write), 1, {SCMP_A0(SCMP_CMP_EQ, STDERR_FILENO, 0)}}, /* nowhere */
        {SCMP_SYS(mmap),
         2,
         {SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
          SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS)}},
        {SCMP_SYS(mprotect), 1, {SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)}},
        /* What abort() needs, so that its end can be told from an attack. */
        {SCMP_SYS(getpid), 0, {{0}}},
        {SCMP_SYS(gettid), 0, {{0}}},
        {SCMP_SYS(rt_sigprocmask), 0, {{0}}},
        {SCMP_SYS(tgkill),
         2,
         {SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0), SCMP_A2(SCMP_CMP_EQ, SIGABRT, 0)}},
    };
    int code = 0;
    for (size_t i = 0; i < sizeof rules / sizeof *rules && code == 0; i++) {
        code = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, rules[i].call, rules[i].count,
                                      rules[i].conditions);
    }
    return code;
}

static dk_status lock_up(const dk_upload_limits *limits, dk_error *err)
{
    close_range(DK_UPLOAD_OUTPUT_FD + 1, ~0u, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 ||
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) {
        return dk_fail(err, DK_INTERNAL, "the decoder cannot lock itself up: %s",
                       strerror(errno));
    }
    DK_TRY(limit_all(limits, err));
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int code = filter != NULL ? add_rules(filter) : -ENOMEM;
    code = code == 0 ? seccomp_load(filter) : code;
    if (code != 0) {
        return dk_fail(err, DK_INTERNAL, "the decoder's seccomp filter cannot be set: %s",
                       strerror(-code));
    }
    seccomp_release(filter);
    return DK_OK;
}

/* What a picture that has taken the process over might do; for the tests. */
static void try_it(const char *attempt)
{
    static char *const nothing[] = {NULL};
    void *code;
    if (strcmp(attempt, "open") == 0) {
        code = fopen("/etc/passwd", "r");
    } else if (strcmp(attempt, "socket") == 0) {
        socket(AF_INET, SOCK_STREAM, 0);
    } else if (strcmp(attempt, "fork") == 0) {
        fork();
    } else if (strcmp(attempt, "exec") == 0) {
        execve("/bin/true", nothing, nothing);
    } else if (strcmp(attempt, "kill") == 0) {
        kill(getppid(), SIGTERM);
    } else if (strcmp(attempt, "code") == 0) {
        code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
                    -1, 0);
        (void)code;
    } else if (strcmp(attempt, "spin") == 0) {
        for (volatile unsigned i = 0;; i = i + 1) {
        }
    } else if (strcmp(attempt, "memory") == 0) {
        for (;;) {
            memset(dk_alloc(MEBI), 1, MEBI);
        }
    }
}

static dk_status read_input(uint8_t **out, size_t size, dk_error *err)
{
    void *data;
    size_t used = 0;
    DK_TRY(dk_try_alloc(&data, size, "the picture's file", err));
    while (used < size) {
        ssize_t got = read(DK_UPLOAD_INPUT_FD, (char *)data + used, size - used);
        if (got <= 0) {
            return dk_fail(err, DK_INTERNAL, "the picture did not reach its decoder");
        }
        used += (size_t)got;
    }
    *out = data;
    return DK_OK;
}

static dk_status decode(size_t size, const dk_upload_limits *limits, dk_error *err)
{
    uint8_t *data = NULL;
    dk_image image;
    const dk_media_limits media = {
        .max_pixels = limits->max_pixels, .max_bytes = size, .keep_alpha = true};
    DK_TRY(read_input(&data, size, err));
    DK_TRY(dk_image_decode(&image, data, size, "the picture", &media, err));
    dk_upload_header header = {.width = (uint32_t)image.width,
                               .height = (uint32_t)image.height,
                               .has_alpha = image.alpha != NULL};
    memcpy(header.magic, DK_UPLOAD_MAGIC, sizeof header.magic);
    size_t pixels = (size_t)image.width * (size_t)image.height;
    bool written =
        write_whole(DK_UPLOAD_OUTPUT_FD, &header, sizeof header) &&
        write_whole(DK_UPLOAD_OUTPUT_FD, image.rgb, pixels * CHANNELS) &&
        (image.alpha == NULL || write_whole(DK_UPLOAD_OUTPUT_FD, image.alpha, pixels));
    return written ? DK_OK : dk_fail(err, DK_MEMORY, "no memory for the picture's pixels");
}

void dk_upload_decode_child(size_t size, const dk_upload_limits *limits, const char *attempt)
{
    dk_error err = {0};
    dk_status status = lock_up(limits, &err);
    if (status == DK_OK) {
        if (attempt != NULL) {
            try_it(attempt);
        }
        status = decode(size, limits, &err);
    }
    end(status, &err);
}
