/* What a conversion will do, file by file, known before anything is written. */
#ifndef DK_CLI_CONVERT_PLAN_H
#define DK_CLI_CONVERT_PLAN_H

#include "cli/folder.h"
#include "weights/recast.h"

typedef enum dk_convert_kind {
    DK_CONVERT_COPY,
    DK_CONVERT_RECAST,
    DK_CONVERT_INDEX, /* of shards: total_size changes */
    DK_CONVERT_SKIP,  /* weights in formats that are not read */
} dk_convert_kind;

typedef struct dk_convert_item {
    dk_convert_kind kind;
    const char *path;          /* relative, borrowed from the list */
    dk_safetensors *file;      /* RECAST: open, owned */
    bool keep_f32;             /* RECAST: of a WanTransformer3DModel */
    uint64_t bytes, new_bytes; /* of the whole file; RECAST: of its tensors */
} dk_convert_item;

typedef struct dk_convert_plan {
    char *folder; /* owned */
    dk_file_list files;
    dk_convert_item *items; /* [files.count] */
    uint64_t bytes, new_bytes;
    int recasts;
} dk_convert_plan;

/* For a folder, or for one safetensors file (`file_name` in `folder`; NULL: the whole folder).
   Owned. */
DK_MUST_USE dk_status dk_convert_plan_make(dk_convert_plan *out, const char *folder,
                                           const char *file_name, dk_dtype dtype,
                                           dk_error *err);
void dk_convert_plan_release(dk_convert_plan *plan);

dk_recast_options dk_convert_options(const dk_convert_item *item, dk_dtype dtype);

/* The text of an index of shards with its new total_size. Owned (free). */
DK_MUST_USE dk_status dk_convert_index(char **text, const dk_convert_plan *plan,
                                       const dk_convert_item *item, dk_error *err);

#endif
