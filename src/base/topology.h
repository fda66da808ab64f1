/* Which processors there are, NUMA nodes and physical cores, and how much memory is free: from
   Linux's /sys and /proc. */
#ifndef DK_BASE_TOPOLOGY_H
#define DK_BASE_TOPOLOGY_H

#include <stddef.h>
#include <stdint.h>

enum { DK_MOST_CPUS = 1024 };

typedef struct dk_cpu_place {
    int cpu, node; /* as Linux numbers them */
    int core;      /* the first CPU of the same physical core that the process may run on */
} dk_cpu_place;

/* The CPUs that this process may run on, in the order in which threads should take them: nodes
   in turn, and one of each physical core before any second one. */
typedef struct dk_topology {
    int count, nodes; /* nodes: how many of them have such CPUs, at least 1 */
    dk_cpu_place places[DK_MOST_CPUS];
} dk_topology;

/* system: "/sys/devices/system"; what is missing there counts as one node of single cores.
   allowed[cpu]: whether the process may run there; NULL asks Linux. */
void dk_topology_read(dk_topology *out, const char *system, const unsigned char *allowed);

/* What process `index` of `of` gets of the CPUs: mine[cpu] is 1 for those, else 0. With as many
   processes as nodes or fewer, whole nodes; with more, a part of one node, so that nobody's
   memory is on two; physical cores stay whole while there are enough. Neighbours are on the
   same node where they can be. With more processes than CPUs they share them in turn. */
void dk_topology_share(const dk_topology *topology, int index, int of,
                       unsigned char mine[DK_MOST_CPUS]);

/* Spreads pages that nobody touched yet over all nodes. Only a wish: memory on one node works
   as well, slower. Does nothing on machines with one node. */
void dk_topology_interleave(const dk_topology *topology, void *memory, size_t bytes);

/* Memory that the machine can give now without swapping; 0: it does not tell. */
uint64_t dk_available_memory_bytes(void);

#endif
