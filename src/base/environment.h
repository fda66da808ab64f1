/* Variables of the environment that the library itself reads: those that say where a machine's
   drivers, modules and caches are, and faults that tests ask for. Everything that decides what
   is computed is an option that the caller sets. docs/xpu.md lists them. */
#ifndef DK_BASE_ENVIRONMENT_H
#define DK_BASE_ENVIRONMENT_H

#include <stdbool.h>

/* NULL when it is not set or empty. Borrowed until the environment changes. */
const char *dk_environment(const char *name);

/* Sets what the user has not set, for a library that can be told in no other way. Before that
   library is used, and while no other thread reads the environment. Returns whether it did. */
bool dk_environment_default(const char *name, const char *value);

#endif
