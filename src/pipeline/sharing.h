/* What the ranks of a replica that do not lead need of a job before they denoise it with the
   leader: it has read the files, drawn the noise and found the prompts. */
#ifndef DK_PIPELINE_SHARING_H
#define DK_PIPELINE_SHARING_H

#include "pipeline/job.h"

/* On all ranks at once: prompts' embeddings, the first latent, where the loop begins. Nothing
   on one rank. */
DK_MUST_USE dk_status dk_job_share(dk_job *job, dk_error *err);

/* What a resumed job's sampler remembers: its states lie on the device. */
DK_MUST_USE dk_status dk_job_share_sampler(dk_job *job, const dk_tensor *latent,
                                           float *const *state, dk_error *err);

#endif
