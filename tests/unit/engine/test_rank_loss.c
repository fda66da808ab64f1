/* A rank that hangs, or is gone, between two stages of a request that it makes with the leader:
   the request fails, and says who is missing. A stage that nobody else comes to is not passed
   over. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "darkroom/darkroom.h"
#include "test.h"

enum {
    DEADLINE_S = 2,
    NOTICED_NS = 200 * 1000 * 1000, /* the end of a connection is heard of at once */
};

static dk_status open_rank(dk_engine **engine, int rank, const char *address, dk_error *err)
{
    dk_engine_options options;
    dk_engine_options_init(&options);
    options.model_path = "tests/golden/wan2.1-t2v/checkpoint";
    options.threads = 1;
    options.num_gpus = 2;
    options.ulysses_degree = 2;
    options.distributed_backend = "shm";
    options.dist_timeout = DEADLINE_S;
    options.rank = rank;
    options.rank_address = address;
    return dk_engine_open(engine, &options, err);
}

static pid_t start_follower(const char *address)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dk_error err;
        dk_engine *engine = NULL;
        dk_status status = open_rank(&engine, 1, address, &err);
        status = status == DK_OK ? dk_engine_follow(engine, &err) : status;
        _exit(status == DK_OK ? 0 : 1);
    }
    return pid;
}

/* What happens to the follower when the leader is through a stage. */
typedef struct loss {
    const char *after;
    int signal;
    pid_t follower;
} loss;

static void watch(void *context, const dk_event *event)
{
    const loss *l = context;
    if (event->kind == DK_EVENT_STAGE_END && strcmp(event->stage, l->after) == 0) {
        assert_int_equal(kill(l->follower, l->signal), 0);
        nanosleep(&(struct timespec){.tv_nsec = NOTICED_NS}, NULL);
    }
}

static void lose_after(const char *stage, int signal)
{
    char address[64];
    dk_error err;
    dk_engine *engine;
    snprintf(address, sizeof address, "unix:@darkroom-test-%d-%s-%d", (int)getpid(), stage,
             signal);
    loss l = {.after = stage, .signal = signal, .follower = start_follower(address)};
    assert_ok(open_rank(&engine, 0, address, &err), err);
    dk_request request;
    dk_request_init(&request, engine);
    request.prompt = "a cat";
    request.width = request.height = 32;
    request.num_frames = 1;
    request.num_inference_steps = 2;
    dk_generation one = {.request = &request, .events = watch, .context = &l};
    dk_generate_together(engine, &one, 1);
    assert_int_equal(one.status, DK_DEVICE);
    assert_non_null(strstr(one.error.message, "rank 1"));
    kill(l.follower, SIGKILL);
    assert_int_equal(waitpid(l.follower, NULL, 0), l.follower);
    dk_engine_close(&engine);
}

static void hanging(void **state)
{
    (void)state;
    lose_after("text encoding", SIGSTOP);
    lose_after("denoising", SIGSTOP);
}

static void gone(void **state)
{
    (void)state;
    lose_after("text encoding", SIGKILL);
    lose_after("denoising", SIGKILL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hanging),
        cmocka_unit_test(gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
