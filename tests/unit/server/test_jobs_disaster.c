/* A store of jobs whose server is killed at any time, and one whose disk is full. */
#define _GNU_SOURCE
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"
#include "jobs_fixture.h"
#include "scratch.h"

enum { KILLS = 50, KILL_AFTER_US = 40000, ID_BYTES = 38 /* "video_" and 32 digits */ };

/* Every row has its folder with its input, every folder its row, nothing else lies about. */
static void assert_consistent(dk_jobs *jobs, const char *folder)
{
    dk_error err;
    dk_job_list list;
    const dk_jobs_query query = {.limit = 1000000};
    assert_ok(dk_jobs_list(jobs, &query, &list, &err), err);
    char *path = store_path(folder, "jobs");
    int files = 0, folders = 0;
    for (int i = 0; i < list.count; i++) {
        const dk_job_record *job = &list.records[i];
        assert_true(store_has(jobs, job->id, "input-image.png"));
        files++;
        int done = 0;
        for (int k = 0; k < job->output_count; k++) {
            if (job->outputs[k].done) {
                assert_true(store_has(jobs, job->id, job->outputs[k].file));
                done++;
            }
        }
        assert_true(job->state != DK_JOB_COMPLETED || done == job->output_count);
    }
    DIR *stream = opendir(path);
    assert_non_null(stream);
    for (struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
        folders += entry->d_name[0] != '.' || strlen(entry->d_name) > 2;
    }
    closedir(stream);
    assert_int_equal(folders, list.count);
    assert_true(scratch_count(path) >= files);
    dk_free(path);
    dk_job_list_release(&list);
}

static void assert_sound(const char *folder)
{
    assert_int_equal(store_sql(folder, "SELECT count(*) FROM pragma_integrity_check WHERE "
                                       "integrity_check = 'ok'"),
                     1);
    assert_int_equal(store_sql(folder, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
}

/* What the doomed process announces: a letter and an id. A accepted, D will be deleted,
   C completed. */
static void announce(int pipe, char what, const char *id)
{
    char line[ID_BYTES + 2];
    snprintf(line, sizeof line, "%c%s", what, id);
    if (write(pipe, line, ID_BYTES + 1) != ID_BYTES + 1) {
        _exit(1);
    }
}

static void must(bool good)
{
    if (!good) {
        _exit(1);
    }
}

static void doom_output(dk_jobs *jobs, const char *id, int index, bool *completed)
{
    char name[32];
    snprintf(name, sizeof name, "output-%d.mp4", index);
    const dk_job_output output = {.index = index, .file = name, .bytes = 9000};
    static const char bytes[9000];
    must(dk_jobs_write(jobs, id, name, bytes, sizeof bytes, NULL) == DK_OK);
    must(dk_jobs_output_done(jobs, id, &output, completed, NULL) == DK_OK);
}

/* Works until it is killed. */
static void doomed(const char *path, int pipe)
{
    dk_jobs *jobs = NULL;
    const dk_jobs_options options = {.path = path};
    must(dk_jobs_open(&jobs, &options, NULL) == DK_OK);
    for (unsigned i = 0;; i++) {
        dk_job_order order = order_plain();
        char *id = NULL;
        bool flag;
        must(dk_jobs_create(jobs, &order, &id, &flag, NULL) == DK_OK);
        announce(pipe, 'A', id);
        must(dk_jobs_start(jobs, id, NULL) == DK_OK);
        switch (i % 4) {
        case 0:
            doom_output(jobs, id, 1, &flag);
            doom_output(jobs, id, 0, &flag);
            must(flag);
            announce(pipe, 'C', id);
            break;
        case 1:
            must(dk_jobs_cancel(jobs, id, &flag, NULL) == DK_OK);
            break;
        case 2:
            announce(pipe, 'D', id);
            must(dk_jobs_delete(jobs, id, NULL) == DK_OK);
            break;
        default:
            doom_output(jobs, id, 0, &flag);
        }
        dk_free(id);
    }
}

static void check_announced(dk_jobs *jobs, const dk_string *told, int *accepted)
{
    dk_error err;
    for (size_t at = 0; at + ID_BYTES + 1 <= told->length; at += ID_BYTES + 1) {
        char *id = dk_strndup(told->data + at + 1, ID_BYTES);
        bool deleted = false;
        for (size_t k = at; k + ID_BYTES + 1 <= told->length; k += ID_BYTES + 1) {
            deleted |= told->data[k] == 'D' && memcmp(told->data + k + 1, id, ID_BYTES) == 0;
        }
        dk_job_record job;
        dk_status status = dk_jobs_get(jobs, id, NULL, &job, &err);
        if (status != DK_OK && !deleted) {
            fail_msg("%c: %s", told->data[at], err.message);
        }
        if (status == DK_OK) {
            assert_true(told->data[at] != 'C' || job.state == DK_JOB_COMPLETED);
            assert_true(job.state != DK_JOB_IN_PROGRESS && job.state != DK_JOB_FAILED);
            dk_job_record_release(&job);
        }
        *accepted += told->data[at] == 'A';
        dk_free(id);
    }
}

static void read_all(int fd, dk_string *out)
{
    char bytes[4096];
    for (ssize_t got; (got = read(fd, bytes, sizeof bytes)) > 0;) {
        dk_string_append(out, bytes, (size_t)got);
    }
}

static void test_kill(void **state)
{
    (void)state;
    /* In memory, where most happens before a kill: what was written stays as it does on disk.
     */
    char *folder = store_scratch();
    char *path = dk_path_join(folder, "store");
    dk_string told = DK_STRING_EMPTY;
    int accepted = 0;
    srand(20240607);
    for (int i = 0; i < KILLS; i++) {
        int ends[2], status;
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            close(ends[0]);
            doomed(path, ends[1]);
        }
        close(ends[1]);
        usleep((useconds_t)(rand() % KILL_AFTER_US));
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        read_all(ends[0], &told);
        close(ends[0]);
        dk_jobs *jobs = store_open(folder);
        accepted = 0;
        check_announced(jobs, &told, &accepted);
        assert_consistent(jobs, folder);
        dk_jobs_close(&jobs);
        assert_sound(folder);
    }
    print_message("%d jobs were accepted over %d kills\n", accepted, KILLS);
    assert_true(accepted > KILLS);
    dk_string_release(&told);
    dk_free(path);
    scratch_remove(folder);
}

enum { DISK_BYTES = 12 << 20, PAGE = 4096 };

/* A small file system over the folder, of this process alone; false: not allowed. */
static bool mount_small(const char *folder)
{
    char size[32];
    snprintf(size, sizeof size, "size=%d", (int)DISK_BYTES);
    return unshare(CLONE_NEWNS) == 0 &&
           mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", folder, "tmpfs", 0, size) == 0;
}

/* Leaves `pages` free pages on the small file system. */
static void fill(const char *folder, int pages)
{
    static const char page[PAGE], chunk[16 * PAGE];
    char *path = dk_path_join(folder, "ballast");
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    assert_true(fd >= 0);
    while (write(fd, chunk, sizeof chunk) == (ssize_t)sizeof chunk) {
    }
    while (write(fd, page, sizeof page) == (ssize_t)sizeof page) {
    }
    assert_int_equal(errno, ENOSPC);
    struct stat info;
    assert_int_equal(fstat(fd, &info), 0);
    off_t size = info.st_size / PAGE * PAGE - (off_t)pages * PAGE;
    assert_int_equal(ftruncate(fd, size > 0 ? size : 0), 0);
    close(fd);
    dk_free(path);
}

static void make_room(const char *folder)
{
    char *path = dk_path_join(folder, "ballast");
    assert_int_equal(unlink(path), 0);
    dk_free(path);
}

static int64_t count_jobs(dk_jobs *jobs)
{
    dk_error err;
    dk_jobs_usage usage;
    int64_t count = 0;
    assert_ok(dk_jobs_usage_get(jobs, &usage, &err), err);
    for (int i = 0; i < 5; i++) {
        count += usage.count[i];
    }
    return count;
}

/* Tries to take in a job of some size; a failure must be of space and leave nothing. */
static bool try_create(dk_jobs *jobs, const char *folder, const char *request, bool inputs)
{
    dk_error err;
    char *id = NULL;
    bool again;
    dk_job_order order = order_plain();
    order.request = request;
    order.input_count = inputs ? 1 : 0;
    int64_t before = count_jobs(jobs);
    dk_status status = dk_jobs_create(jobs, &order, &id, &again, &err);
    assert_true(status == DK_OK || status == DK_NO_SPACE);
    assert_int_equal(count_jobs(jobs), before + (status == DK_OK));
    if (status == DK_NO_SPACE) {
        assert_null(id);
        char *store = dk_path_join(folder, "store");
        assert_useful(&err, store);
        dk_free(store);
    } else if (!inputs) {
        assert_ok(dk_jobs_write(jobs, id, "input-image.png", "", 0, &err), err);
    }
    dk_free(id);
    return status == DK_OK;
}

static char *long_request(size_t size)
{
    char *request = dk_alloc(size + 1);
    memset(request, 'r', size);
    return request;
}

/* Every amount of free space: whatever write fails, the job is in or it is not. */
static void check_create(dk_jobs *jobs, const char *folder, int *refused)
{
    char *request = long_request(30000);
    for (int pages = 0; pages < 60; pages++) {
        fill(folder, pages);
        *refused += !try_create(jobs, folder, request, true);
        *refused += !try_create(jobs, folder, "{}", pages % 2 != 0);
        assert_consistent(jobs, folder);
        make_room(folder);
        assert_true(try_create(jobs, folder, "{}", true)); /* and it goes on at once */
    }
    dk_free(request);
}

static void check_write(dk_jobs *jobs, const char *folder)
{
    dk_error err;
    char *id = store_create(jobs, "video", ""), *bytes = long_request(5 * PAGE);
    fill(folder, 2);
    assert_int_equal(dk_jobs_write(jobs, id, "output-0.mp4", bytes, 5 * PAGE, &err),
                     DK_NO_SPACE);
    assert_useful(&err, "output-0.mp4");
    assert_non_null(strstr(err.message, "20480 bytes"));
    make_room(folder);
    assert_false(store_has(jobs, id, "output-0.mp4"));
    store_complete(jobs, id, 5 * PAGE);
    dk_free(bytes);
    dk_free(id);
}

/* Jobs can end and be removed on a full disk, thanks to the reserve; without it they fail
   without harm, and go on when there is space. */
static void check_vital(dk_jobs *jobs, const char *folder)
{
    dk_error err;
    char *a = store_create(jobs, "video", ""), *b = store_create(jobs, "video", "");
    char *c = store_create(jobs, "video", ""), *d = store_create(jobs, "video", "");
    char *reserve = store_path(folder, "reserve");
    bool flag = false;
    assert_ok(dk_jobs_expire(jobs, NULL, NULL, &err), err);
    assert_true(dk_path_exists(reserve));
    store_output(jobs, c, 0, 10);
    assert_ok(dk_jobs_write(jobs, c, "output-1.mp4", "", 0, &err), err);
    char *message = long_request(100000);
    /* The log starts over, so that a long message makes it grow. */
    assert_int_equal(store_sql(folder, "PRAGMA wal_checkpoint(TRUNCATE)"), 0);
    fill(folder, 0);
    assert_ok(dk_jobs_fail(jobs, a, "c", message, &flag, &err), err);
    assert_true(flag);
    assert_false(dk_path_exists(reserve));
    dk_job_output output = {.index = 1, .file = (char[]){"output-1.mp4"}};
    assert_ok(dk_jobs_output_done(jobs, c, &output, &flag, &err), err);
    assert_true(flag);
    make_room(folder);
    fill(folder, 0); /* what the reserve gave as well */
    assert_false(dk_path_exists(reserve));
    dk_status status = dk_jobs_fail(jobs, b, "c", message, &flag, &err);
    assert_int_equal(status, DK_NO_SPACE);
    assert_int_equal(store_state(jobs, b), DK_JOB_QUEUED);
    make_room(folder);
    assert_ok(dk_jobs_fail(jobs, b, "c", message, &flag, &err), err);
    assert_true(flag);
    assert_ok(dk_jobs_expire(jobs, NULL, NULL, &err), err);
    assert_true(dk_path_exists(reserve));
    fill(folder, 0);
    assert_ok(dk_jobs_delete(jobs, a, &err), err);
    assert_ok(dk_jobs_delete(jobs, d, &err), err);
    make_room(folder);
    char *ids[] = {a, b, c, d, reserve, message};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        dk_free(ids[i]);
    }
}

/* A store whose limit is reached on a full disk makes space by itself. */
static void check_expire_when_full(const char *folder)
{
    dk_error err;
    dk_jobs *jobs = store_open_with(folder, 0, 1e-9);
    char *id = store_create(jobs, "video", "");
    store_complete(jobs, id, 100000);
    dk_jobs_usage usage;
    fill(folder, 0);
    assert_ok(dk_jobs_expire(jobs, NULL, NULL, &err), err);
    assert_ok(dk_jobs_usage_get(jobs, &usage, &err), err);
    assert_int_equal(usage.count[DK_JOB_COMPLETED], 0);
    assert_true(try_create(jobs, folder, "{}", true)); /* there is space without help */
    make_room(folder);
    assert_consistent(jobs, folder);
    dk_jobs_close(&jobs);
    dk_free(id);
}

/* Opened at every amount of free space: it works or it says why, and loses nothing. */
static void check_open(const char *folder)
{
    dk_error err;
    char *path = dk_path_join(folder, "store");
    const dk_jobs_options options = {.path = path};
    int refused = 0;
    dk_jobs *jobs = store_open(folder);
    char *running = store_create(jobs, "video", "");
    int64_t count = count_jobs(jobs);
    for (int pages = 0; pages < 40; pages++) {
        assert_ok(dk_jobs_start(jobs, running, &err), err); /* open has something to write */
        dk_jobs_close(&jobs);
        fill(folder, pages);
        dk_status status = dk_jobs_open(&jobs, &options, &err);
        if (status == DK_OK) {
            dk_jobs_close(&jobs);
        } else {
            assert_int_equal(status, DK_NO_SPACE);
            assert_useful(&err, path);
            refused++;
        }
        make_room(folder);
        assert_sound(folder);
        jobs = store_open(folder);
        assert_int_equal(count_jobs(jobs), count);
        assert_int_equal(store_state(jobs, running), DK_JOB_QUEUED);
    }
    assert_consistent(jobs, folder);
    print_message("opening was refused %d times of 40\n", refused);
    dk_jobs_close(&jobs);
    dk_free(running);
    dk_free(path);
}

/* A store that never was, on a full disk. */
static void check_first_open(const char *folder)
{
    dk_error err;
    char *path = dk_path_join(folder, "new");
    const dk_jobs_options options = {.path = path};
    for (int pages = 0; pages < 30; pages++) {
        dk_jobs *jobs = NULL;
        fill(folder, pages);
        dk_status status = dk_jobs_open(&jobs, &options, &err);
        assert_true(status == DK_OK || status == DK_NO_SPACE);
        dk_jobs_close(&jobs);
        make_room(folder);
        if (status == DK_OK) {
            break;
        }
        assert_useful(&err, path);
    }
    dk_jobs *jobs = NULL;
    assert_ok(dk_jobs_open(&jobs, &options, &err), err);
    char *id = store_create(jobs, "video", "");
    assert_int_equal(store_state(jobs, id), DK_JOB_QUEUED);
    dk_free(id);
    dk_jobs_close(&jobs);
    dk_free(path);
}

/* Without the right to mount: files may not grow beyond a size. Weaker: the error is another.
 */
static void check_limited_files(const char *folder)
{
    struct rlimit old, low;
    dk_error err;
    dk_jobs *jobs = store_open(folder);
    char *request = long_request(2000000), *id = NULL;
    bool again;
    dk_job_order order = order_plain();
    order.request = request;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = 1000000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    assert_int_not_equal(dk_jobs_create(jobs, &order, &id, &again, &err), DK_OK);
    assert_null(id);
    assert_int_equal(count_jobs(jobs), 0);
    assert_consistent(jobs, folder);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_ok(dk_jobs_create(jobs, &order, &id, &again, &err), err);
    assert_consistent(jobs, folder);
    dk_jobs_close(&jobs);
    assert_sound(folder);
    dk_free(request);
    dk_free(id);
}

static void test_full_disk(void **state)
{
    (void)state;
    char *folder = scratch_create();
    int refused = 0;
    if (!mount_small(folder)) {
        print_message("no right to mount: a limit on the size of files plays the full disk\n");
        check_limited_files(folder);
        scratch_remove(folder);
        return;
    }
    print_message("a full disk of %d bytes\n", (int)DISK_BYTES);
    check_first_open(folder);
    dk_jobs *jobs = store_open(folder);
    check_create(jobs, folder, &refused);
    print_message("%d of 120 jobs were refused\n", refused);
    assert_true(refused > 10 && refused < 110);
    check_write(jobs, folder);
    check_vital(jobs, folder);
    assert_consistent(jobs, folder);
    dk_jobs_close(&jobs);
    assert_sound(folder);
    check_expire_when_full(folder);
    check_open(folder);
    assert_sound(folder);
    assert_int_equal(umount2(folder, 0), 0);
    scratch_remove(folder);
}

/* The stand-in is tried even where the disk can be full. */
static void test_limited_files(void **state)
{
    (void)state;
    char *folder = scratch_create();
    check_limited_files(folder);
    scratch_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_limited_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
