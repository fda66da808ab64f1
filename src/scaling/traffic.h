/* What a rank sends in one step of denoising, exactly: the numbers that a communicator counts
   (dk_comm_get_work) when a layout runs, and that the cost of a layout is made of.

   The rows of every group of blocks are split over the sp ranks as equal as can be, heads over
   tp, then over the Ulysses ranks (dk_part_size). */
#ifndef DK_SCALING_TRAFFIC_H
#define DK_SCALING_TRAFFIC_H

#include "comm/groups.h"
#include "scaling/geometry.h"

typedef enum dk_traffic_kind {
    DK_TRAFFIC_ULYSSES, /* all_to_all: queries, keys, values there, outputs back */
    DK_TRAFFIC_RING,    /* shift: keys and values, to the next rank */
    DK_TRAFFIC_TP,      /* all_reduce of what the row-split layers give */
    DK_TRAFFIC_NORM,    /* all_reduce of sums of squares, for norms across heads */
    DK_TRAFFIC_GATHER,  /* all_gather of the parts of the predicted latent */
    DK_TRAFFIC_CFG,     /* broadcasts of each branch's predicted latent to the other */
    DK_TRAFFIC_SHARD,   /* all_gather of the weights of a block */
    DK_TRAFFIC_KINDS
} dk_traffic_kind;
extern const char *const dk_traffic_names[DK_TRAFFIC_KINDS]; /* "ulysses" */

typedef struct dk_traffic {
    double bytes[DK_TRAFFIC_KINDS]; /* sent to other ranks */
    double calls[DK_TRAFFIC_KINDS];
} dk_traffic;

typedef struct dk_traffic_options {
    int activation_bytes; /* of what is exchanged: 2 for bf16, 4 for f32 */
    int weight_bytes;
    bool sharded;    /* every rank of a replica keeps 1/n of the weights of each block */
    int head_groups; /* queries and outputs travel in so many calls each, without a ring; 0: 1
                      */
    int ring_calls;  /* shifts of a block of keys and values: 2 where each goes alone; 0: 1 */
} dk_traffic_options;

/* Rows and heads of a rank in one group of blocks. */
typedef struct dk_share {
    int64_t rows;      /* in the linear layers */
    int64_t ring_rows; /* queries in attention: the rows of its Ulysses group */
    int64_t heads;     /* in attention */
    int64_t tp_heads;  /* of its tp rank */
} dk_share;
dk_share dk_share_of(const dk_block_group *group, const dk_geometry *geometry,
                     const dk_layout *layout, const dk_place *place);

/* Of one block and one pass. ULYSSES, RING, TP, NORM and SHARD are set. */
void dk_traffic_of_block(dk_traffic *out, const dk_geometry *geometry, int group,
                         const dk_layout *layout, const dk_place *place,
                         const dk_traffic_options *options);
/* Of a step: all blocks of the passes that this rank makes, and its end. */
void dk_traffic_of_step(dk_traffic *out, const dk_geometry *geometry, const dk_layout *layout,
                        const dk_place *place, const dk_traffic_options *options);
double dk_traffic_bytes(const dk_traffic *traffic); /* of all kinds */

#endif
