/* Ranks of a test. */
#include "ranks_fixture.h"

#include <stdio.h>
#include <unistd.h>

#include "test.h"

void name_meeting(char address[64], const char *name)
{
    snprintf(address, 64, "unix:@darkroom-test-%d-%s", (int)getpid(), name);
}

dk_status open_rank(dk_engine **engine, int rank, const char *address, dk_error *err)
{
    dk_engine_options options;
    dk_engine_options_init(&options);
    options.model_path = "tests/golden/wan2.1-t2v/checkpoint";
    options.threads = 1;
    options.num_gpus = 2;
    options.ulysses_degree = 2;
    options.distributed_backend = "shm";
    options.dist_timeout = RANK_DEADLINE_S;
    options.rank = rank;
    options.rank_address = address;
    return dk_engine_open(engine, &options, err);
}

pid_t start_follower(const char *address)
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
