/* Modules: shared objects beside the program, loaded when they are asked for, so that the
   program runs on machines without their libraries. */
#ifndef DK_BASE_LOAD_MODULE_H
#define DK_BASE_LOAD_MODULE_H

#include "base/error.h"

/* Loads libdarkroom-<kind>.so from DARKROOM_MODULE_PATH, from beside the program or from
   ../lib/darkroom, and finds what it exports under the name `symbol`: *get. `builds`, for the
   message: "./dev build --xpu builds it". handle: for dk_module_unload. DK_NOT_FOUND names the
   places that were looked at, DK_UNSUPPORTED a library that is missing, or no module. *path, if
   not NULL, becomes the file's (owned). */
DK_MUST_USE dk_status dk_module_load(void **handle, void **get, char **path, const char *kind,
                                     const char *symbol, const char *builds, dk_error *err);
void dk_module_unload(void *handle); /* NULL is fine */

#endif
