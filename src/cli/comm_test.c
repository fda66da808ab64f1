/* darkroom comm-test: is what the ranks of a group are connected by right, and how fast is it?
 */
#include "cli/comm_test.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/environment.h"
#include "base/process.h"
#include "cli/arguments.h"
#include "cli/report.h"
#include "device/device.h"

static const dk_parameter parameters[] = {
    {.name = "backend",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(dk_comm_test_flags, backend),
     .unit = "NAME",
     .default_text = "auto",
     .help = "auto (probed, with a fallback), xccl, mpi or shm; self is one rank, which sends "
             "nothing"},
    {.name = "device",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(dk_comm_test_flags, device),
     .unit = "NAME",
     .default_text = "cpu",
     .help = "whose memory is sent: cpu; xpu (each rank its own GPU), xpu:N or xpu:cpu, where "
             "xccl enqueues its calls"},
    {.name = "num_gpus",
     .type = DK_PARAMETER_INT,
     .offset = offsetof(dk_comm_test_flags, num_gpus),
     .min = 1,
     .max = DK_COMM_MOST_RANKS,
     .default_text = "2",
     .help =
         "ranks that are started on this host; a rank that somebody else started starts none"},
    {.name = "max_bytes",
     .type = DK_PARAMETER_INT,
     .offset = offsetof(dk_comm_test_flags, max_bytes),
     .min = 1,
     .max = 1 << 30,
     .unit = "BYTES",
     .default_text = "67108864",
     .help = "the largest size that is checked and timed"},
    {.name = "deadline_s",
     .type = DK_PARAMETER_REAL,
     .offset = offsetof(dk_comm_test_flags, deadline_s),
     .min = 0.1,
     .max = 3600,
     .unit = "S",
     .default_text = "30",
     .help = "seconds that a call may take; the start may take 60"},
    {.name = "inject",
     .type = DK_PARAMETER_TEXT,
     .offset = offsetof(dk_comm_test_flags, inject),
     .unit = "FAULT:RANK",
     .default_text = "none",
     .help = "a check of the test itself: late:RANK, kill:RANK or corrupt:RANK makes that rank "
             "fail"},
    {.name = "json",
     .type = DK_PARAMETER_BOOL,
     .offset = offsetof(dk_comm_test_flags, json),
     .default_text = "false",
     .help = "print one JSON object, a failure too"},
};

static const dk_parameter_table table = {.title = "Communication",
                                         .parameters = parameters,
                                         .count = sizeof parameters / sizeof *parameters};

static void print_size(double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB"};
    int unit = 0;
    for (; bytes >= 1024 && unit < 3; unit++) {
        bytes /= 1024;
    }
    printf("%8.4g %-3s", bytes, units[unit]);
}

static void print_report(const json_t *report)
{
    size_t i;
    json_t *call;
    printf("%d ranks over %s, memory of %s: %d checks passed, on all ranks, by halves, odd and "
           "even\n",
           (int)json_integer_value(json_object_get(report, "ranks")),
           json_string_value(json_object_get(report, "backend")),
           json_string_value(json_object_get(report, "device")),
           (int)json_integer_value(json_object_get(report, "checks")));
    json_array_foreach(json_object_get(report, "not_offered"), i, call)
    {
        printf("%s: this backend has none between two ranks\n", json_string_value(call));
    }
    printf("\n%-16s %-5s %12s %12s %11s %11s\n", "call", "type", "size", "latency us", "GB/s",
           "bus GB/s");
    json_array_foreach(json_object_get(report, "calls"), i, call)
    {
        const char *type = json_string_value(json_object_get(call, "dtype"));
        printf("%-16s %-5s ", json_string_value(json_object_get(call, "call")),
               type != NULL ? type : "");
        print_size(json_number_value(json_object_get(call, "bytes")));
        printf(" %12.1f %11.3f %11.3f\n",
               json_number_value(json_object_get(call, "latency_us")),
               json_number_value(json_object_get(call, "algorithm_gbs")),
               json_number_value(json_object_get(call, "bus_gbs")));
    }
}

static void show(const dk_comm_test_flags *flags, const json_t *report)
{
    if (flags->json) {
        dk_report_print(report);
    } else {
        print_report(report);
    }
}

/* Started by the command itself (told): everything goes to the one that waits. Started by
   others: rank 0 prints. */
static dk_status be_rank(const dk_comm_test_flags *flags, const dk_launch *launch,
                         const char *parent, dk_error *err)
{
    dk_comm_injection injection;
    json_t *report = NULL;
    dk_error failure = {0};
    if (parent != NULL) {
        DK_TRY(dk_process_bind((int)strtol(parent, NULL, 10), err));
    } else if (launch->rank > 0 && freopen("/dev/null", "w", stdout) == NULL) {
        return dk_fail(err, DK_IO, "/dev/null cannot be written");
    }
    dk_status status = dk_comm_injection_parse(&injection, flags->inject, &failure);
    if (status == DK_OK) {
        status = dk_comm_test_rank(&report, flags, &injection, launch, &failure);
    }
    if (parent != NULL) {
        dk_comm_test_tell(launch->rank, status, &failure, launch->rank == 0 ? report : NULL);
    } else if (status == DK_OK && launch->rank == 0) {
        show(flags, report);
    }
    json_decref(report);
    if (status != DK_OK) {
        status = parent != NULL
                     ? status
                     : dk_fail(err, status, "rank %d: %s", launch->rank, failure.message);
    }
    return status;
}

static dk_status run(const dk_arguments *arguments, dk_error *err)
{
    dk_comm_test_flags flags = {.backend = "auto",
                                .device = "cpu",
                                .num_gpus = 2,
                                .max_bytes = 64 << 20,
                                .deadline_s = 30};
    dk_comm_injection injection;
    dk_launch launch;
    DK_TRY(dk_arguments_apply(arguments, &table, &flags, err));
    DK_TRY(dk_comm_injection_parse(&injection, flags.inject, err));
    DK_TRY(dk_launch_check(err));
    dk_launch_read(&launch);
    DK_TRY(dk_device_check_name(flags.device, err));
    DK_TRY(dk_comm_check_backend(flags.backend, launch.is_rank ? launch.ranks : flags.num_gpus,
                                 err));
    if (launch.is_rank) {
        return be_rank(&flags, &launch, dk_environment(DK_COMM_TEST_PARENT), err);
    }
    if (strcmp(flags.backend, "mpi") == 0) {
        return dk_comm_test_become_mpirun(&flags, err);
    }
    json_t *report = NULL;
    dk_status status = dk_comm_test_start(&report, &flags, err);
    if (status == DK_OK) {
        show(&flags, report);
    }
    json_decref(report);
    return status;
}

static const dk_flag_group groups[] = {{&table, NULL}, {0}};

const dk_command dk_command_comm_test = {
    .name = "comm-test",
    .usage = "[--backend NAME] [--num-gpus N] [flags]",
    .summary = "Checks and times what ranks communicate by.",
    .text =
        "Every call with known data: all types, sizes and forms (uneven parts, started ones), "
        "on all ranks and in sub-groups. Then a table of latency and bandwidth; bus GB/s are "
        "counted as NCCL's tests do. A rank that is late, missing or wrong is named, and "
        "the exit code is not 0. Under mpirun, srun or torchrun each process is one of the "
        "ranks, and rank 0 prints.",
    .examples =
        "  darkroom comm-test --backend shm --num-gpus 4\n"
        "  darkroom comm-test --backend xccl --num-gpus 2 --json\n"
        "  darkroom comm-test --backend xccl --num-gpus 4 --device xpu\n"
        "  mpirun -n 8 --hostfile hosts darkroom comm-test --backend mpi\n"
        "  darkroom comm-test --backend shm --num-gpus 3 --deadline-s 2 --inject late:1\n",
    .groups = groups,
    .run = run,
};
