/* Stages, and the recipe of a pipeline class as an array of them. */
#ifndef DK_PIPELINE_STAGE_H
#define DK_PIPELINE_STAGE_H

#include "pipeline/job.h"
#include "pipeline/planning.h"

typedef struct dk_planning dk_planning;

typedef struct dk_stage {
    const char *name;                   /* in events and timings */
    bool per_output;                    /* runs for every output, not once */
    bool (*applies)(const dk_job *job); /* NULL: always */
    /* One of the two: for one job after the other, or for all that are still well; that sets
       the status and the error of those that fail. */
    dk_status (*run)(dk_job *job, dk_error *err);
    void (*run_together)(dk_job *const *jobs, int count);
    /* Dry, in a context of its own: adds up what the stage will take for the whole request; see
       planning.h. NULL: next to nothing. */
    dk_status (*plan)(dk_job *job, dk_planning *planning, dk_error *err);
    /* On several ranks the leader runs stages alone, but for those that all ranks share, which
       the others run too. NULL: never shared. */
    bool (*is_shared)(const dk_job *job);
    /* What the other ranks do of a stage that the leader runs alone; NULL: nothing. */
    dk_status (*follow)(dk_job *job, dk_error *err);
    dk_rate rate;           /* at which its operations are computed; none: it uses no weights */
    dk_component component; /* whose weights it uses */
} dk_stage;

/* The stages of WanPipeline, in order. */
extern const dk_stage dk_stage_input_validation;
extern const dk_stage dk_stage_text_encoding;
extern const dk_stage dk_stage_image_encoding;
extern const dk_stage dk_stage_latent_preparation;
extern const dk_stage dk_stage_timestep_preparation;
extern const dk_stage dk_stage_preview_preparation;
extern const dk_stage dk_stage_denoising;
extern const dk_stage dk_stage_decoding;

extern const dk_stage *const dk_recipe_wan[]; /* NULL-ended */

#endif
