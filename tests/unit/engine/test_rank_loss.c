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

#include "ranks_fixture.h"
#include "test.h"

enum { NOTICED_NS = 200 * 1000 * 1000 }; /* the end of a connection is heard of at once */

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
    char address[64], name[32];
    dk_error err;
    dk_engine *engine;
    snprintf(name, sizeof name, "%s-%d", stage, signal);
    name_meeting(address, name);
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
