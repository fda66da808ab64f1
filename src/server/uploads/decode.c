/* The parent's side: it starts the child, waits no longer than it must, and believes nothing
   that comes back before it is checked. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"
#include "server/uploads/protocol.h"
#include "server/uploads/uploads.h"

#define ACCEPTED "accepted are PNG, JPEG and WebP pictures"

enum {
    CHANNELS = 3,
    DEFAULT_PIXELS = 32 * 1024 * 1024,
    DEFAULT_BYTES = 32 * 1024 * 1024,
    DEFAULT_MEMORY_MB = 512,
    DEFAULT_SECONDS = 10,
    FREE_FD = 10,    /* above those that the child knows by number */
    START_MS = 2000, /* for the program to be loaded, beside the time to decode */
    REAP_STEP_MS = 1,
};

/* One decoding. Descriptors are -1 while they are not open. */
typedef struct decoding {
    dk_upload_limits limits;
    int input, output, report, report_end;
    pid_t child;
    bool late; /* killed at the deadline */
    int code;  /* of waitpid */
    dk_string message;
} decoding;

static dk_upload_limits complete(const dk_upload_limits *limits)
{
    dk_upload_limits all = limits != NULL ? *limits : (dk_upload_limits){0};
    all.max_pixels = all.max_pixels > 0 ? all.max_pixels : DEFAULT_PIXELS;
    all.max_bytes = all.max_bytes > 0 ? all.max_bytes : DEFAULT_BYTES;
    all.memory_mb = all.memory_mb > 0 ? all.memory_mb : DEFAULT_MEMORY_MB;
    all.seconds = all.seconds > 0 ? all.seconds : DEFAULT_SECONDS;
    return all;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

/* Moves a descriptor out of the way of the child's numbers. */
static int lift(int fd)
{
    if (fd < 0 || fd >= FREE_FD) {
        return fd;
    }
    int lifted = fcntl(fd, F_DUPFD_CLOEXEC, FREE_FD);
    close(fd);
    return lifted;
}

static dk_status fail_start(const char *what, int code, dk_error *err)
{
    return dk_fail(err, DK_IO, "the picture's decoder cannot be started: %s: %s", what,
                   strerror(code));
}

static dk_status open_files(decoding *d, const void *data, size_t size, dk_error *err)
{
    int both[2];
    d->input = lift(memfd_create("picture", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    d->output = lift(memfd_create("pixels", MFD_CLOEXEC));
    if (d->input < 0 || d->output < 0 || pipe2(both, O_CLOEXEC) != 0) {
        return fail_start("descriptors", errno, err);
    }
    d->report = lift(both[0]);
    d->report_end = lift(both[1]);
    for (size_t used = 0; used < size;) {
        ssize_t written = pwrite(d->input, (const char *)data + used, size - used, (off_t)used);
        if (written <= 0) {
            return dk_fail(err, DK_MEMORY, "no memory to hand the picture to its decoder");
        }
        used += (size_t)written;
    }
    fcntl(d->input, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    return DK_OK;
}

/* The child's environment: where libraries lie, and no secrets. */
static void select_environment(char *selected[], int most)
{
    static const char *const kept[] = {"LD_LIBRARY_PATH=", "ASAN_OPTIONS=", "UBSAN_OPTIONS="};
    int count = 0;
    for (char **entry = environ; *entry != NULL; entry++) {
        for (size_t i = 0; i < sizeof kept / sizeof *kept && count < most - 1; i++) {
            if (dk_starts_with(*entry, kept[i])) {
                selected[count++] = *entry;
            }
        }
    }
    selected[count] = NULL;
}

static dk_status start(decoding *d, size_t size, const char *program, dk_error *err)
{
    enum { ENVIRONMENT_MOST = 8 };
    char numbers[4][24], name[] = "decode-upload", *environment[ENVIRONMENT_MOST];
    char *argv[] = {name, name, numbers[0], numbers[1], numbers[2], numbers[3], NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    snprintf(numbers[0], sizeof *numbers, "%zu", size);
    snprintf(numbers[1], sizeof *numbers, "%llu", (unsigned long long)d->limits.max_pixels);
    snprintf(numbers[2], sizeof *numbers, "%d", d->limits.memory_mb);
    snprintf(numbers[3], sizeof *numbers, "%d", d->limits.seconds);
    select_environment(environment, ENVIRONMENT_MOST);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDERR_FILENO);
    posix_spawn_file_actions_adddup2(&actions, d->report_end, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, d->input, DK_UPLOAD_INPUT_FD);
    posix_spawn_file_actions_adddup2(&actions, d->output, DK_UPLOAD_OUTPUT_FD);
    int code = posix_spawn(&d->child, program, &actions, &attributes, argv, environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close_fd(&d->report_end);
    return code == 0 ? DK_OK : fail_start(program, code, err);
}

/* Reads what the child reports until it closes its output. False: the deadline has passed. */
static bool read_report(decoding *d, double deadline)
{
    for (;;) {
        char bytes[512];
        struct pollfd polled = {.fd = d->report, .events = POLLIN};
        int left = (int)(deadline - dk_now_ms());
        int ready = left > 0 ? poll(&polled, 1, left) : 0;
        if (ready < 0 && errno == EINTR) {
            continue;
        }
        if (ready <= 0) {
            return false;
        }
        ssize_t got = read(d->report, bytes, sizeof bytes);
        if (got <= 0) {
            return true;
        }
        if (d->message.length + (size_t)got <= DK_UPLOAD_REPORT_BYTES) {
            dk_string_append(&d->message, bytes, (size_t)got);
        }
    }
}

/* Waits for the child's end and brings it about when the time is over. */
static void reap(decoding *d)
{
    const struct timespec step = {.tv_nsec = REAP_STEP_MS * 1000000L};
    double deadline = dk_now_ms() + d->limits.seconds * 1e3 + START_MS;
    bool closed = read_report(d, deadline);
    while (closed && dk_now_ms() < deadline) {
        pid_t ended = waitpid(d->child, &d->code, WNOHANG);
        if (ended == d->child) {
            return;
        }
        if (ended < 0 && errno != EINTR) {
            d->code = -1; /* somebody else has waited for it */
            return;
        }
        nanosleep(&step, NULL);
    }
    d->late = true;
    kill(d->child, SIGKILL);
    while (waitpid(d->child, &d->code, 0) < 0 && errno == EINTR) {
    }
}

/* The child's own words; "" when it has none. */
static void read_message(const decoding *d, char *out, size_t size)
{
    json_t *root = NULL;
    const char *message = "";
    if (dk_json_parse(&root, dk_string_text(&d->message), d->message.length, "report", NULL) ==
        DK_OK) {
        const char *found = json_string_value(json_object_get(root, "message"));
        message = found != NULL ? found : "";
    }
    snprintf(out, size, "%s", message);
    json_decref(root);
}

static dk_status fail_memory(const decoding *d, dk_error *err)
{
    return dk_fail(err, DK_FORMAT,
                   "the picture needs more than %d MB of memory to decode, " ACCEPTED
                   " of up to %llu pixels",
                   d->limits.memory_mb, (unsigned long long)d->limits.max_pixels);
}

/* What the child's end means. */
static dk_status judge(const decoding *d, dk_error *err)
{
    int code = WIFEXITED(d->code) ? WEXITSTATUS(d->code) : -1;
    int killed = WIFSIGNALED(d->code) ? WTERMSIG(d->code) : 0;
    if (d->late || killed == SIGXCPU) {
        return dk_fail(err, DK_FORMAT,
                       "the picture takes longer than %d s to decode, " ACCEPTED
                       " of up to %llu pixels",
                       d->limits.seconds, (unsigned long long)d->limits.max_pixels);
    }
    if (killed == SIGABRT || killed == SIGKILL || code == dk_status_exit_code(DK_MEMORY)) {
        return fail_memory(d, err); /* dk_alloc aborts; the kernel kills */
    }
    if (killed != 0) {
        return dk_fail(err, DK_FORMAT,
                       "the picture made its decoder fail (signal %d), " ACCEPTED, killed);
    }
    if (code != 0) {
        char message[DK_ERROR_MESSAGE_BYTES];
        bool is_picture = code == dk_status_exit_code(DK_FORMAT) ||
                          code == dk_status_exit_code(DK_UNSUPPORTED);
        read_message(d, message, sizeof message);
        return dk_fail(err, is_picture && message[0] != '\0' ? DK_FORMAT : DK_INTERNAL, "%s",
                       message[0] != '\0' ? message : "the picture's decoder failed");
    }
    return DK_OK;
}

static bool read_at(int fd, void *out, size_t size, size_t offset)
{
    for (size_t used = 0; used < size;) {
        ssize_t got = pread(fd, (char *)out + used, size - used, (off_t)(offset + used));
        if (got <= 0) {
            return false;
        }
        used += (size_t)got;
    }
    return true;
}

/* The pixels, if they are what the header promises and the limits allow. */
static dk_status read_pixels(const decoding *d, dk_upload *out, dk_error *err)
{
    dk_upload_header header;
    struct stat info;
    void *rgb = NULL, *alpha = NULL;
    dk_status status = DK_OK;
    bool sound = read_at(d->output, &header, sizeof header, 0) &&
                 fstat(d->output, &info) == 0 &&
                 memcmp(header.magic, DK_UPLOAD_MAGIC, sizeof header.magic) == 0 &&
                 header.width > 0 && header.height > 0 && header.has_alpha <= 1 &&
                 header.width <= INT32_MAX && header.height <= INT32_MAX &&
                 (uint64_t)header.width * header.height <= d->limits.max_pixels;
    size_t pixels = sound ? (size_t)header.width * header.height : 0;
    size_t expected = sizeof header + pixels * (CHANNELS + (sound ? header.has_alpha : 0));
    if (!sound || (uint64_t)info.st_size != expected) {
        return dk_fail(err, DK_INTERNAL, "the picture's decoder sent pixels that are none");
    }
    DK_TRY_DONE(dk_try_alloc(&rgb, pixels * CHANNELS, "the picture", err));
    if (header.has_alpha == 1) {
        DK_TRY_DONE(dk_try_alloc(&alpha, pixels, "the picture", err));
    }
    if (!read_at(d->output, rgb, pixels * CHANNELS, sizeof header) ||
        (alpha != NULL &&
         !read_at(d->output, alpha, pixels, sizeof header + pixels * CHANNELS))) {
        status = dk_fail(err, DK_IO, "the picture's pixels cannot be read");
        goto done;
    }
    *out = (dk_upload){
        .width = (int)header.width, .height = (int)header.height, .rgb = rgb, .alpha = alpha};
    rgb = alpha = NULL;
done:
    dk_free(rgb);
    dk_free(alpha);
    return status;
}

dk_status dk_upload_decode(dk_upload *out, const void *data, size_t size,
                           const dk_upload_limits *limits, const char *program, dk_error *err)
{
    decoding d = {.limits = complete(limits),
                  .input = -1,
                  .output = -1,
                  .report = -1,
                  .report_end = -1,
                  .child = -1};
    dk_status status = DK_OK;
    if (size == 0 || size > d.limits.max_bytes) {
        return dk_fail(err, DK_FORMAT,
                       "the picture has %zu bytes, " ACCEPTED " of 1 to %zu bytes", size,
                       d.limits.max_bytes);
    }
    DK_TRY_DONE(open_files(&d, data, size, err));
    DK_TRY_DONE(start(&d, size, program, err));
    reap(&d);
    DK_TRY_DONE(judge(&d, err));
    status = read_pixels(&d, out, err);
done:
    close_fd(&d.input);
    close_fd(&d.output);
    close_fd(&d.report);
    close_fd(&d.report_end);
    dk_string_release(&d.message);
    return status;
}
