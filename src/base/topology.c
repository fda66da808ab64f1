/* Reading /sys: lists such as "0-3,8-11". */
#define _GNU_SOURCE
#include "base/topology.h"

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_NODES = 64, LINE = 8192 };

/* Calls `mark` for every number of a list file; false: there is no such file. */
static bool read_list(const char *path, int most, void (*mark)(void *context, int number),
                      void *context)
{
    char line[LINE];
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return false;
    }
    const char *at = fgets(line, sizeof line, file);
    fclose(file);
    while (at != NULL && *at >= '0' && *at <= '9') {
        char *end;
        long first = strtol(at, &end, 10), last = first;
        if (*end == '-') {
            last = strtol(end + 1, &end, 10);
        }
        for (long i = first; i <= last && i < most; i++) {
            mark(context, (int)i);
        }
        at = *end == ',' ? end + 1 : NULL;
    }
    return true;
}

/* What is known of each CPU: -1 where it may not run. */
typedef struct cpus {
    int node_at_work;
    int node[DK_MOST_CPUS];
    int rank[DK_MOST_CPUS]; /* among the allowed CPUs of its physical core */
    int core[DK_MOST_CPUS]; /* the first of those */
} cpus;

static void mark_node(void *context, int cpu)
{
    cpus *all = context;
    if (all->node[cpu] >= 0) {
        all->node[cpu] = all->node_at_work;
    }
}

typedef struct siblings {
    const cpus *all;
    int cpu, before, first;
} siblings;

static void count_sibling(void *context, int cpu)
{
    siblings *s = context;
    if (cpu < s->cpu && s->all->node[cpu] >= 0) {
        s->before++;
        s->first = cpu < s->first ? cpu : s->first;
    }
}

static void mark_allowed(cpus *all, const unsigned char *allowed)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (allowed == NULL && sched_getaffinity(0, sizeof set, &set) != 0) {
        CPU_SET(0, &set);
    }
    for (int cpu = 0; cpu < DK_MOST_CPUS; cpu++) {
        bool may = allowed != NULL ? allowed[cpu] != 0 : CPU_ISSET((size_t)cpu, &set);
        all->node[cpu] = may ? 0 : -1;
    }
}

/* Takes the next CPU of `node` whose rank is `rank`, from *from on; -1: there is none. */
static int next_cpu(const cpus *all, int node, int rank, int *from)
{
    for (int cpu = *from; cpu < DK_MOST_CPUS; cpu++) {
        if (all->node[cpu] == node && all->rank[cpu] == rank) {
            *from = cpu + 1;
            return cpu;
        }
    }
    *from = DK_MOST_CPUS;
    return -1;
}

static void order(dk_topology *out, const cpus *all)
{
    bool used[MOST_NODES] = {false};
    for (int rank = 0; out->count < DK_MOST_CPUS && rank < DK_MOST_CPUS; rank++) {
        int from[MOST_NODES] = {0}, before = out->count;
        bool found = true;
        while (found) {
            found = false;
            for (int node = 0; node < MOST_NODES; node++) {
                int cpu = next_cpu(all, node, rank, &from[node]);
                if (cpu >= 0) {
                    out->places[out->count++] = (dk_cpu_place){cpu, node, all->core[cpu]};
                    used[node] = found = true;
                }
            }
        }
        if (out->count == before) {
            break;
        }
    }
    for (int node = 0; node < MOST_NODES; node++) {
        out->nodes += used[node];
    }
}

void dk_topology_read(dk_topology *out, const char *system, const unsigned char *allowed)
{
    static const char *const node_list = "%s/node/node%d/cpulist";
    static const char *const sibling_list = "%s/cpu/cpu%d/topology/thread_siblings_list";
    char path[4096];
    cpus all;
    mark_allowed(&all, allowed);
    for (all.node_at_work = 0; all.node_at_work < MOST_NODES; all.node_at_work++) {
        snprintf(path, sizeof path, node_list, system, all.node_at_work);
        read_list(path, DK_MOST_CPUS, mark_node, &all);
    }
    for (int cpu = 0; cpu < DK_MOST_CPUS; cpu++) {
        siblings s = {.all = &all, .cpu = cpu, .first = cpu};
        if (all.node[cpu] >= 0) {
            snprintf(path, sizeof path, sibling_list, system, cpu);
            read_list(path, DK_MOST_CPUS, count_sibling, &s);
        }
        all.rank[cpu] = s.before;
        all.core[cpu] = s.first;
    }
    *out = (dk_topology){0};
    order(out, &all);
    out->nodes = out->nodes > 0 ? out->nodes : 1;
}

static int compare_places(const void *a, const void *b)
{
    const dk_cpu_place *x = a, *y = b;
    return x->node != y->node   ? x->node - y->node
           : x->core != y->core ? x->core - y->core
                                : x->cpu - y->cpu;
}

/* A run of places: one node's. */
typedef struct domain {
    int first, count, processes;
} domain;

static int list_domains(domain *out, const dk_cpu_place *sorted, int count)
{
    int domains = 0;
    for (int i = 0; i < count; i++) {
        if (i == 0 || sorted[i].node != sorted[i - 1].node) {
            out[domains++] = (domain){.first = i};
        }
        out[domains - 1].count++;
    }
    return domains;
}

/* One process each; every further one goes where it has most CPUs then. */
static void share_out(domain *domains, int count, int processes)
{
    for (int i = 0; i < count; i++) {
        domains[i].processes = 1;
    }
    for (; processes > count; processes--) {
        domain *best = &domains[0];
        for (int i = 1; i < count; i++) {
            if (domains[i].count * (best->processes + 1) >
                best->count * (domains[i].processes + 1)) {
                best = &domains[i];
            }
        }
        best->processes++;
    }
}

/* Part `index` of `of` of a domain: whole physical cores where there are enough. */
static void take_part(unsigned char *mine, const dk_cpu_place *places, int count, int index,
                      int of)
{
    int cores = 0, core = -1;
    for (int i = 0; i < count; i++) {
        cores += i == 0 || places[i].core != places[i - 1].core;
    }
    bool whole = cores >= of;
    int units = whole ? cores : count;
    int first = units >= of ? index * units / of : index % units;
    int last = units >= of ? (index + 1) * units / of : first + 1;
    for (int i = 0; i < count; i++) {
        core += i == 0 || places[i].core != places[i - 1].core;
        int unit = whole ? core : i;
        if (unit >= first && unit < last) {
            mine[places[i].cpu] = 1;
        }
    }
}

void dk_topology_share(const dk_topology *topology, int index, int of,
                       unsigned char mine[DK_MOST_CPUS])
{
    dk_cpu_place sorted[DK_MOST_CPUS];
    domain domains[MOST_NODES] = {{0}};
    memset(mine, 0, DK_MOST_CPUS);
    memcpy(sorted, topology->places, sizeof sorted);
    qsort(sorted, (size_t)topology->count, sizeof *sorted, compare_places);
    int count = list_domains(domains, sorted, topology->count);
    if (of <= count) {
        for (int i = index * count / of; i < (index + 1) * count / of; i++) {
            take_part(mine, sorted + domains[i].first, domains[i].count, 0, 1);
        }
        return;
    }
    share_out(domains, count, of);
    int at = 0;
    while (index >= domains[at].processes) {
        index -= domains[at++].processes;
    }
    take_part(mine, sorted + domains[at].first, domains[at].count, index,
              domains[at].processes);
}

void dk_topology_interleave(const dk_topology *topology, void *memory, size_t bytes)
{
    enum { INTERLEAVE = 3 }; /* MPOL_INTERLEAVE of <numaif.h>, which is a library's header */
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)memory + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)memory + bytes) / page * page;
    unsigned long nodes = 0;
    for (int i = 0; i < topology->count; i++) {
        nodes |= 1ul << topology->places[i].node;
    }
    if (topology->nodes > 1 && first < end) {
        (void)syscall(SYS_mbind, first, end - first, INTERLEAVE, &nodes, MOST_NODES + 1, 0);
    }
}

uint64_t dk_available_memory_bytes(void)
{
    char line[256];
    uint64_t kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "MemAvailable:", 13) == 0) {
            kib = strtoull(line + 13, NULL, 10);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return kib * 1024;
}
