/* What the command adds to the engine's options: the built-in model, the environment, progress
   and interruption. */
#ifndef DK_CLI_MODELS_H
#define DK_CLI_MODELS_H

#include "cli/arguments.h"
#include "cli/progress.h"
#include "cli/ranks.h"
#include "darkroom/darkroom.h"

#define DK_EMBEDDED_MODEL "tiny-wan"

/* The folder of the built-in model (owned): under DARKROOM_MODELS when that is set, else beside
   the program (../share/darkroom/models, ../models), else where it was built. */
DK_MUST_USE dk_status dk_find_embedded_model(char **out, dk_error *err);

/* Engine options of one command. */
typedef struct dk_engine_setup {
    dk_engine_options options;
    char *cache, *embedded; /* owned */
    dk_core_share cores;    /* of the replica's ranks; {0, 1}: nobody else's */
    dk_rank_team team;
    bool takes_requests; /* different ones in every replica: dp_size may be above 1 */
    bool joined;         /* the options hold this rank's place */
} dk_engine_setup;

/* Environment and built-in values; the caller applies its arguments on top. */
void dk_engine_setup_init(dk_engine_setup *setup);
void dk_engine_setup_release(dk_engine_setup *setup);

/* Starts the other ranks that the options ask for, and settles this one among them; they end
   with the thread that calls. Once. */
DK_MUST_USE dk_status dk_engine_setup_join(dk_engine_setup *setup, dk_error *err);

/* Joins, where that was not done, resolves the model and opens the engine. Owned. */
DK_MUST_USE dk_status dk_engine_setup_open(dk_engine **out, dk_engine_setup *setup,
                                           dk_progress *progress, dk_error *err);

/* Opens the engine of a rank that does not lead, and computes with the one that does until that
   one ends. */
DK_MUST_USE dk_status dk_engine_setup_follow(dk_engine_setup *setup, dk_error *err);

/* A model folder for the commands that do not compute: a folder as it is, the built-in model,
   or a hub name. Owned. */
DK_MUST_USE dk_status dk_engine_setup_folder(char **out, dk_engine_setup *setup,
                                             const char *model, dk_progress *progress,
                                             dk_error *err);

#endif
