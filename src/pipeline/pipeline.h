/* An opened pipeline: the components that model_index.json names, bound and ready. */
#ifndef DK_PIPELINE_PIPELINE_H
#define DK_PIPELINE_PIPELINE_H

#include <jansson.h>

#include "comm/groups.h"
#include "models/t5/encoder.h"
#include "models/wan/dit.h"
#include "models/wan/vae.h"
#include "pipeline/job.h"
#include "tokenizer/tokenizer.h"
#include "weights/model_folder.h"

enum { DK_WAN_TEXT_ROWS = 512 }; /* prompts are padded to this many rows */

/* The VAE's other half, which only requests with a picture need: packed with the first one. */
typedef struct dk_image_encoder {
    dk_weights *weights; /* owned reference */
    char *where;
    dk_wan_vae *vae; /* NULL before the first */
} dk_image_encoder;

struct dk_pipeline {
    const char *class_name; /* "WanPipeline" */
    dk_tokenizer *tokenizer;
    dk_t5_encoder *text_encoder;
    bool text_is_shared; /* all ranks encode together, each its heads */
    dk_wan_dit *transformer;
    dk_shards *shards; /* owned: the transformer's layers; NULL: they are whole */
    dk_wan_vae *vae;   /* decoder */
    dk_image_encoder *encoder;
    dk_projection *projection; /* owned; fitted with the first preview */
    json_t *scheduler_config;  /* owned */
    char *scheduler_where;     /* its file, for messages */
    char **weight_files;       /* owned paths of all weight files, NULL-ended */
    char *quantization;        /* owned: what was quantised, how well; NULL: nothing */
    dk_request defaults;
};

typedef struct dk_pipeline_options {
    dk_device *text_device;       /* borrowed: where prompts are encoded; NULL: the same */
    const dk_groups *groups;      /* borrowed: ranks that share the work; NULL: one */
    dk_quantization quantization; /* of the transformer's linear layers */
    double max_error;             /* of one layer, see nn/quantize.h; NAN: the kind's own */
    const atomic_bool *cancel;    /* may be NULL */
    const dk_log *log;            /* may be NULL */
} dk_pipeline_options;

/* Opens the components of a folder for a device. Owned; closed before the device. DK_CANCELLED
   between two components when `cancel` is set. */
DK_MUST_USE dk_status dk_pipeline_open(dk_pipeline **out, const dk_model_folder *folder,
                                       dk_device *device, const dk_pipeline_options *options,
                                       dk_error *err);
void dk_pipeline_close(dk_pipeline **pipeline);

#endif
