/* Requests that two ranks make together: what stops one of them stops neither the others nor
   the ranks. */
#include <string.h>
#include <sys/wait.h>

#include "ranks_fixture.h"
#include "test.h"

enum { REQUESTS = 3, SIDE = 96 }; /* large enough that their passes are worth joining */

/* Wishes the end of a request when a stage of it begins, or `step` of it has ended. */
typedef struct stopper {
    const char *stage;
    int step; /* 0: when the stage begins */
    dk_cancel *cancel;
} stopper;

static void watch(void *context, const dk_event *event)
{
    const stopper *s = context;
    bool begins = event->kind == DK_EVENT_STAGE_BEGIN && s->step == 0;
    bool stepped = event->kind == DK_EVENT_STEP && event->step == s->step;
    if ((begins || stepped) && strcmp(event->stage, s->stage) == 0) {
        dk_cancel_request(s->cancel);
    }
}

static void make_requests(dk_request requests[REQUESTS], const dk_engine *engine)
{
    for (int i = 0; i < REQUESTS; i++) {
        dk_request_init(&requests[i], engine);
        requests[i].prompt = "a cat";
        requests[i].width = requests[i].height = SIDE;
        requests[i].num_frames = 1;
        requests[i].num_inference_steps = 4;
        requests[i].seed = (uint64_t)i;
    }
}

/* The first `stopped` requests end where `stage` is, the others as if they were alone. */
static void stop_in(dk_engine *engine, const char *stage, int step, int stopped)
{
    dk_request requests[REQUESTS];
    dk_generation all[REQUESTS];
    stopper stoppers[REQUESTS];
    make_requests(requests, engine);
    for (int i = 0; i < REQUESTS; i++) {
        stoppers[i] = (stopper){stage, step, dk_cancel_create()};
        all[i] = (dk_generation){.request = &requests[i]};
        if (i < stopped) {
            all[i].events = watch;
            all[i].context = &stoppers[i];
            all[i].cancel = stoppers[i].cancel;
        }
    }
    assert_true(dk_request_joins(engine, &requests[0], &requests[1]));
    dk_generate_together(engine, all, REQUESTS);
    for (int i = 0; i < REQUESTS; i++) {
        dk_error err;
        dk_result alone;
        dk_cancel_destroy(&stoppers[i].cancel);
        if (i < stopped) {
            assert_int_equal(all[i].status, DK_CANCELLED);
            continue;
        }
        assert_ok(all[i].status, all[i].error);
        assert_ok(dk_generate(engine, &requests[i], NULL, NULL, &alone, &err), err);
        assert_memory_equal(all[i].result.rgb, alone.rgb, SIDE * SIDE * 3);
        dk_result_release(&alone);
        dk_result_release(&all[i].result);
    }
}

static void test_stops(void **state)
{
    (void)state;
    char address[64];
    dk_error err;
    dk_engine *engine;
    int code;
    name_meeting(address, "stops");
    pid_t follower = start_follower(address);
    assert_ok(open_rank(&engine, 0, address, &err), err);
    for (int stopped = 1; stopped <= REQUESTS; stopped++) {
        stop_in(engine, "text encoding", 0, stopped);
        stop_in(engine, "denoising", 0, stopped);
        stop_in(engine, "denoising", 2, stopped);
        stop_in(engine, "denoising", 4, stopped);
        stop_in(engine, "decoding", 0, stopped);
    }
    dk_engine_close(&engine);
    assert_int_equal(waitpid(follower, &code, 0), follower);
    assert_true(WIFEXITED(code) && WEXITSTATUS(code) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_stops)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
