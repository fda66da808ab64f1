/* Stages, and the recipe of a pipeline class as an array of them. */
#ifndef DK_PIPELINE_STAGE_H
#define DK_PIPELINE_STAGE_H

#include "pipeline/job.h"

typedef struct dk_stage {
    const char *name;                   /* in events and timings */
    bool per_output;                    /* runs for every output, not once */
    bool (*applies)(const dk_job *job); /* NULL: always */
    /* One of the two: for one job after the other, or for all that are still well; that sets
       the status and the error of those that fail. */
    dk_status (*run)(dk_job *job, dk_error *err);
    void (*run_together)(dk_job *const *jobs, int count);
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
