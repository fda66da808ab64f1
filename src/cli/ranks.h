/* The processes of a replica: this one, which leads, and those that it starts; or ranks that
   mpirun, srun or another launcher started, each of which finds its place in the environment.
 */
#ifndef DK_CLI_RANKS_H
#define DK_CLI_RANKS_H

#include <sys/types.h>

#include "cli/arguments.h"
#include "comm/groups.h"
#include "darkroom/darkroom.h"
#include "engine/ranks.h"

/* Where this process shares the host's cores with others of its kind. */
typedef struct dk_core_share {
    int index, of;
} dk_core_share;

enum { DK_RANK_DEVICE_BYTES = 32 };

typedef struct dk_rank_team {
    pid_t pids[DK_COMM_MOST_RANKS]; /* of the ranks that this process started */
    int count;
    char address[256], key[128], device[DK_RANK_DEVICE_BYTES];
    char *trace; /* owned; NULL: none */
} dk_rank_team;

/* --print-topology: draws the groups of a layout instead of running. */
typedef struct dk_topology_flags {
    bool print_topology;
} dk_topology_flags;
extern const dk_parameter_table dk_topology_parameters;
/* Whether that is all that is wanted; then the layout has been drawn to stdout. */
DK_MUST_USE dk_status dk_ranks_topology(bool *drawn, const dk_arguments *arguments,
                                        const dk_layout *layout,
                                        const dk_engine_options *options, dk_error *err);

/* A server's layout: as dk_ranks_layout, but num_gpus alone are so many replicas. The options
   then say the layout. Sharding is checked, too. */
DK_MUST_USE dk_status dk_ranks_serving_layout(dk_layout *out, dk_engine_options *options,
                                              dk_error *err);
/* Of one replica: what its worker is told. */
void dk_ranks_replica_options(dk_engine_options *options, const dk_layout *layout);

/* Gives the options this process's place (texts are borrowed from the team): from the
   launcher's environment, or as the first rank of a replica whose others it starts. cores:
   those of the whole replica, of.index counting ranks. takes_requests: different ones in every
   replica, of which a launcher may have started several. */
DK_MUST_USE dk_status dk_rank_team_start(dk_rank_team *team, dk_engine_options *options,
                                         dk_core_share cores, bool takes_requests,
                                         dk_error *err);
/* After the engine was closed: waits a moment for the others, then ends them. */
void dk_rank_team_end(dk_rank_team *team);

/* Of "xpu" the device of the host's rank `index`, "xpu:N"; other names, and -1 for a place that
   is not told, stay as they are. */
const char *dk_rank_device(char out[DK_RANK_DEVICE_BYTES], const char *asked, int index);

/* A rank's device, trace and cores, by its place. */
void dk_rank_settle(dk_rank_team *team, dk_engine_options *options, dk_core_share cores);

/* The key that the leader wrote into a pipe, as the team's. */
DK_MUST_USE dk_status dk_rank_read_key(dk_rank_team *team, int fd, dk_error *err);

#endif
