/* Reading a machine's nodes and cores from a folder like /sys/devices/system, and teams whose
   threads are bound. */
#define _GNU_SOURCE
#include "test.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/team.h"

static char folder[] = "/tmp/dk-topology-XXXXXX";

static void put(const char *name, const char *text)
{
    dk_error err;
    char *path = dk_path_join(folder, name), *slash = strrchr(path, '/');
    *slash = '\0';
    assert_ok(dk_make_folders(path, &err), err);
    *slash = '/';
    assert_ok(dk_file_write(path, text, strlen(text), &err), err);
    dk_free(path);
}

/* Two nodes of two cores with two threads each: 0 and 4 share a core, and so on. */
static int make_machine(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    put("node/node0/cpulist", "0-1,4-5\n");
    put("node/node1/cpulist", "2-3,6,7\n");
    for (int cpu = 0; cpu < 8; cpu++) {
        char name[64], text[32];
        snprintf(name, sizeof name, "cpu/cpu%d/topology/thread_siblings_list", cpu);
        snprintf(text, sizeof text, "%d,%d\n", cpu % 4, cpu % 4 + 4);
        put(name, text);
    }
    return 0;
}

static int remove_machine(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void expect_places(const dk_topology *topology, const int *cpus, int count)
{
    assert_int_equal(topology->count, count);
    for (int i = 0; i < count; i++) {
        assert_int_equal(topology->places[i].cpu, cpus[i]);
    }
}

static void cores_before_siblings_and_nodes_in_turn(void **state)
{
    (void)state;
    unsigned char allowed[DK_MOST_CPUS] = {1, 1, 1, 1, 1, 1, 1, 1};
    static const int all[] = {0, 2, 1, 3, 4, 6, 5, 7}, some[] = {4, 2, 5, 6};
    dk_topology topology;
    dk_topology_read(&topology, folder, allowed);
    assert_int_equal(topology.nodes, 2);
    expect_places(&topology, all, 8);
    assert_int_equal(topology.places[1].node, 1);
    allowed[0] = allowed[1] = allowed[3] = allowed[7] = 0;
    dk_topology_read(&topology, folder, allowed);
    expect_places(&topology, some, 4);
    allowed[2] = allowed[6] = 0;
    dk_topology_read(&topology, folder, allowed);
    assert_int_equal(topology.nodes, 1);
}

static void unknown_machines_are_one_node(void **state)
{
    (void)state;
    unsigned char allowed[DK_MOST_CPUS] = {0, 1, 0, 1};
    static const int cpus[] = {1, 3};
    dk_topology topology;
    dk_topology_read(&topology, "/nonexistent", allowed);
    assert_int_equal(topology.nodes, 1);
    expect_places(&topology, cpus, 2);
    dk_topology_read(&topology, "/sys/devices/system", NULL);
    assert_int_equal(topology.count, dk_available_cores());
}

/* "0,4 1,5": who of `of` gets which CPUs. */
static void expect_shares(const dk_topology *topology, int of, const char *expected)
{
    char text[256];
    size_t used = 0;
    for (int index = 0; index < of; index++) {
        unsigned char mine[DK_MOST_CPUS];
        const char *between = index > 0 ? " " : "";
        dk_topology_share(topology, index, of, mine);
        for (int cpu = 0; cpu < DK_MOST_CPUS; cpu++) {
            if (mine[cpu]) {
                used += (size_t)snprintf(text + used, sizeof text - used, "%s%d", between, cpu);
                between = ",";
            }
        }
    }
    assert_string_equal(text, expected);
}

static void processes_share_nodes_and_cores(void **state)
{
    (void)state;
    unsigned char allowed[DK_MOST_CPUS] = {1, 1, 1, 1, 1, 1, 1, 1};
    dk_topology topology;
    dk_topology_read(&topology, folder, allowed);
    expect_shares(&topology, 1, "0,1,2,3,4,5,6,7");
    expect_shares(&topology, 2, "0,1,4,5 2,3,6,7"); /* a node each */
    expect_shares(&topology, 3, "0,4 1,5 2,3,6,7"); /* nobody has parts of two */
    expect_shares(&topology, 4, "0,4 1,5 2,6 3,7"); /* a physical core each */
    expect_shares(&topology, 5, "0 4 1,5 2,6 3,7");
    expect_shares(&topology, 8, "0 4 1 5 2 6 3 7");
    expect_shares(&topology, 10, "0 4 1 5 0 2 6 3 7 2"); /* in turn */
    allowed[1] = allowed[5] = allowed[4] = 0;            /* node 0 has CPU 0 alone */
    dk_topology_read(&topology, folder, allowed);
    expect_shares(&topology, 2, "0 2,3,6,7");
    expect_shares(&topology, 3, "0 2,6 3,7");
    dk_topology_read(&topology, "/nonexistent", allowed);
    expect_shares(&topology, 2, "0,2 3,6,7");
}

/* Sleeps, so that the other threads get tasks however busy the machine is. */
static void where_threads_run(void *context, int task, int thread)
{
    (void)task;
    cpu_set_t set;
    sched_getaffinity(0, sizeof set, &set);
    ((int *)context)[thread] = CPU_COUNT(&set);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void teams_are_bound(void **state)
{
    (void)state;
    dk_topology here;
    dk_team *team;
    dk_error err;
    int counts[3] = {0};
    dk_topology_read(&here, "/sys/devices/system", NULL);
    assert_ok(dk_team_create(&team, 3, DK_PIN_CORES, &here, &err), err);
    for (int i = 0; i < 400 && (counts[1] == 0 || counts[2] == 0); i++) {
        dk_team_run(team, 64, where_threads_run, counts); /* 64 ms on one thread */
    }
    dk_team_destroy(&team);
    assert_int_equal(counts[0], here.count); /* the caller's thread is left alone */
    assert_int_equal(counts[1], 1);
    assert_int_equal(counts[2], 1);
}

static void names(void **state)
{
    (void)state;
    dk_topology topology = {.count = 2, .nodes = 2};
    dk_pin pin;
    dk_error err;
    assert_ok(dk_pin_from_name(&pin, NULL, &topology, &err), err);
    assert_int_equal(pin, DK_PIN_NODES);
    assert_ok(dk_pin_from_name(&pin, "cores", &topology, &err), err);
    assert_int_equal(pin, DK_PIN_CORES);
    topology.nodes = 1;
    assert_ok(dk_pin_from_name(&pin, "auto", &topology, &err), err);
    assert_int_equal(pin, DK_PIN_NONE);
    assert_int_equal(dk_pin_from_name(&pin, "all", &topology, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "'all', accepted are auto, none, nodes, cores"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cores_before_siblings_and_nodes_in_turn),
        cmocka_unit_test(unknown_machines_are_one_node),
        cmocka_unit_test(processes_share_nodes_and_cores),
        cmocka_unit_test(teams_are_bound),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, make_machine, remove_machine);
}
