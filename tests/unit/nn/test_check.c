/* The word between blocks, on two ranks: nobody waits for it, and what one rank knows all hear
   at the same call. */
#include "../comm/comm_fixture.h"
#include "test.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "device/cpu/cpu_device.h"
#include "nn/parallel.h"
#include "scratch.h"

enum { DEADLINE_S = 5 };

typedef struct rank {
    dk_comm *world;
    dk_groups groups;
    dk_nn_parallel parallel;
    dk_nn nn;
} rank;

static dk_status open_rank(rank *r, const dk_transport_options *at, dk_error *err)
{
    const dk_layout layout = {.tp = 1, .cfg = 1, .dp = 1, .ulysses = at->ranks, .ring = 1};
    const dk_comm_options comm = {.backend = "shm",
                                  .rank = at->rank,
                                  .ranks = at->ranks,
                                  .address = at->address,
                                  .key = at->key,
                                  .deadline_s = DEADLINE_S};
    dk_device *device;
    *r = (rank){0};
    DK_TRY(dk_comm_open(&r->world, &comm, err));
    DK_TRY(dk_groups_create(&r->groups, r->world, &layout, err));
    DK_TRY(dk_comm_split(&r->parallel.control, r->world, 0, at->rank, "control", err));
    DK_TRY(dk_cpu_device_open(&device, &(dk_device_options){.threads = 1}, err));
    r->parallel.groups = &r->groups;
    dk_nn_init(&r->nn, device, DK_F32, NULL);
    r->nn.parallel = &r->parallel;
    return DK_OK;
}

static void close_rank(rank *r)
{
    dk_device *device = r->nn.device;
    dk_nn_release(&r->nn);
    dk_device_close(&device);
    dk_comm_close(&r->parallel.control);
    dk_groups_release(&r->groups);
    dk_comm_close(&r->world);
}

/* What a case expects of a check. */
static dk_status expect(dk_status seen, dk_status expected, const char *where, dk_error *err)
{
    if (seen != expected) {
        return dk_fail(err, DK_MISMATCH, "%s: %s, expected %s", where, dk_status_text(seen),
                       dk_status_text(expected));
    }
    return DK_OK;
}

static dk_status await_file(const char *path, dk_error *err)
{
    for (int i = 0; i < 2 * DEADLINE_S * 100; i++) {
        if (access(path, F_OK) == 0) {
            return DK_OK;
        }
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    return dk_fail(err, DK_TIMEOUT, "the other rank waits between its blocks");
}

/* Rank 1 is held up until rank 0 has left a block behind it. argument: a file that tells it. */
static dk_status run_ahead(rank *r, int number, const char *argument, dk_error *err)
{
    if (number == 1) {
        DK_TRY(await_file(argument, err));
    }
    DK_TRY(dk_nn_check_block(&r->nn, err));
    if (number == 0) {
        int file = open(argument, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        close(file);
    }
    DK_TRY(dk_nn_check_block(&r->nn, err));
    return dk_nn_check(&r->nn, err);
}

static void break_device(dk_nn *nn)
{
    nn->device->failed = dk_fail(&nn->device->failure, DK_MEMORY, "its own failure");
}

/* Rank 1's device fails in the first block. Both ranks hear it at the check after the next
   block, and go on together. */
static dk_status fail_amid(rank *r, int number, const char *argument, dk_error *err)
{
    dk_error told;
    (void)argument;
    if (number == 1) {
        break_device(&r->nn);
    }
    DK_TRY(expect(dk_nn_check_block(&r->nn, &told), DK_OK, "first block", err));
    DK_TRY(expect(dk_nn_check_block(&r->nn, &told), DK_MEMORY, "second block", err));
    if (strcmp(told.message, number == 1 ? "its own failure" : DK_NN_ANOTHER_RANK) != 0 ||
        !r->nn.agreed) {
        return dk_fail(err, DK_MISMATCH, "told '%s'", told.message);
    }
    DK_TRY(dk_nn_check_block(&r->nn, err));
    return dk_nn_check(&r->nn, err);
}

/* In the last block: the end of the pass tells it at once. */
static dk_status fail_last(rank *r, int number, const char *argument, dk_error *err)
{
    dk_error told;
    (void)argument;
    DK_TRY(dk_nn_check_block(&r->nn, err));
    if (number == 1) {
        break_device(&r->nn);
    }
    DK_TRY(expect(dk_nn_check(&r->nn, &told), DK_MEMORY, "the end", err));
    return dk_nn_check(&r->nn, err);
}

static dk_status expect_stopped(const dk_nn *nn, uint64_t expected, const char *where,
                                dk_error *err)
{
    if (nn->stopped != expected) {
        return dk_fail(err, DK_MISMATCH, "%s: wishes %x heard, expected %x", where,
                       (unsigned)nn->stopped, (unsigned)expected);
    }
    return DK_OK;
}

/* The leader's wish counts, nobody else's; it is heard one block later, and at the end. */
static dk_status wish(rank *r, int number, const char *argument, dk_error *err)
{
    atomic_bool first = number == 1, second = number == 0, third = false;
    const atomic_bool *wishes[] = {&first, &second, &third};
    (void)argument;
    memcpy(r->nn.wishes, wishes, sizeof wishes);
    r->nn.wish_count = 3;
    DK_TRY(dk_nn_check_block(&r->nn, err));
    DK_TRY(expect_stopped(&r->nn, 0, "first block", err));
    DK_TRY(dk_nn_check_block(&r->nn, err));
    DK_TRY(expect_stopped(&r->nn, 2, "second block", err));
    atomic_store(&third, true);
    DK_TRY(dk_nn_check(&r->nn, err));
    return expect_stopped(&r->nn, 6, "the end", err);
}

/* All of it, which ends the pass on both. */
static dk_status cancel(rank *r, int number, const char *argument, dk_error *err)
{
    atomic_bool stops = number == 0;
    dk_error told;
    (void)argument;
    r->nn.cancel = &stops;
    DK_TRY(expect(dk_nn_check_block(&r->nn, &told), DK_OK, "first block", err));
    DK_TRY(expect(dk_nn_check_block(&r->nn, &told), DK_CANCELLED, "second block", err));
    atomic_store(&stops, false);
    return dk_nn_check(&r->nn, err);
}

/* What is heard ends the pass of a rank that has failed meanwhile, too: it tells that, and
   begins the next one without it. */
static dk_status cancel_and_fail(rank *r, int number, const char *argument, dk_error *err)
{
    atomic_bool stops = number == 0;
    dk_error told;
    (void)argument;
    r->nn.cancel = &stops;
    DK_TRY(expect(dk_nn_check_block(&r->nn, &told), DK_OK, "first block", err));
    if (number == 1) {
        break_device(&r->nn);
    }
    DK_TRY(expect(dk_nn_check_block(&r->nn, &told), number == 1 ? DK_MEMORY : DK_CANCELLED,
                  "second block", err));
    atomic_store(&stops, false);
    DK_TRY(dk_nn_check_block(&r->nn, err));
    return dk_nn_check(&r->nn, err);
}

/* Rank 1 leaves without a word: rank 0's word gets no answer. */
static dk_status leave(rank *r, int number, const char *argument, dk_error *err)
{
    dk_error told;
    (void)argument;
    if (number == 1) {
        dk_nn_abandon(&r->nn, "had enough");
        return DK_OK;
    }
    dk_status status = dk_nn_check_block(&r->nn, &told);
    if (status == DK_OK) {
        status = dk_nn_check_block(&r->nn, &told);
    }
    if (status == DK_OK || strstr(told.message, "had enough") == NULL) {
        return dk_fail(err, DK_MISMATCH, "told '%s'",
                       status == DK_OK ? "nothing" : told.message);
    }
    return r->nn.cut_off && !r->nn.agreed ? DK_OK : dk_fail(err, DK_MISMATCH, "not cut off");
}

typedef dk_status case_fn(rank *r, int number, const char *argument, dk_error *err);

static dk_status run_case(const dk_transport_options *at, case_fn *run, const char *argument,
                          dk_error *err)
{
    rank r;
    DK_TRY(open_rank(&r, at, err));
    dk_status status = run(&r, at->rank, argument, err);
    close_rank(&r);
    return status;
}

#define CASE(name)                                                                             \
    static dk_status name##_on(const dk_transport_options *at, const char *argument,           \
                               dk_error *err)                                                  \
    {                                                                                          \
        return run_case(at, name, argument, err);                                              \
    }                                                                                          \
    static void test_##name(void **state)                                                      \
    {                                                                                          \
        (void)state;                                                                           \
        run_ranks(#name, 2, "-");                                                              \
    }
CASE(fail_amid)
CASE(fail_last)
CASE(wish)
CASE(cancel)
CASE(cancel_and_fail)
CASE(leave)

static dk_status run_ahead_on(const dk_transport_options *at, const char *argument,
                              dk_error *err)
{
    return run_case(at, run_ahead, argument, err);
}

static void test_run_ahead(void **state)
{
    (void)state;
    char *folder = scratch_create();
    char *path = scratch_path(folder, "passed");
    run_ranks("run_ahead", 2, path);
    dk_free(path);
    scratch_remove(folder);
}

/* Alone there is nobody to tell: what is wished counts at once. */
static void test_alone(void **state)
{
    (void)state;
    dk_device *device;
    dk_nn nn;
    dk_error err;
    atomic_bool stops = false;
    assert_ok(dk_cpu_device_open(&device, &(dk_device_options){.threads = 1}, &err), err);
    dk_nn_init(&nn, device, DK_F32, &stops);
    assert_ok(dk_nn_check_block(&nn, &err), err);
    atomic_store(&stops, true);
    assert_int_equal(dk_nn_check_block(&nn, &err), DK_CANCELLED);
    dk_nn_release(&nn);
    dk_device_close(&device);
}

int main(int argc, char **argv)
{
    static const rank_case cases[] = {
        {"run_ahead", run_ahead_on}, {"fail_amid", fail_amid_on},
        {"fail_last", fail_last_on}, {"wish", wish_on},
        {"cancel", cancel_on},       {"cancel_and_fail", cancel_and_fail_on},
        {"leave", leave_on}};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_ahead), cmocka_unit_test(test_fail_amid),
        cmocka_unit_test(test_fail_last), cmocka_unit_test(test_wish),
        cmocka_unit_test(test_cancel),    cmocka_unit_test(test_cancel_and_fail),
        cmocka_unit_test(test_leave),     cmocka_unit_test(test_alone)};
    int code = 0;
    if (ran_as_rank(argc, argv, cases, sizeof cases / sizeof *cases, &code)) {
        return code;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
