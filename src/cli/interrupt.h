/* Ctrl-C, SIGTERM and SIGHUP: the first asks the engine to stop, the second ends the process.
 */
#ifndef DK_CLI_INTERRUPT_H
#define DK_CLI_INTERRUPT_H

#include <stdbool.h>

#include "base/error.h"
#include "darkroom/darkroom.h"

/* Installs the handlers; the token is for dk_engine_options.cancel and lives to the end of the
   process. */
dk_cancel *dk_interrupt_begin(void);
bool dk_interrupted(void);
/* DK_CANCELLED once a signal came. */
DK_MUST_USE dk_status dk_interrupt_check(dk_error *err);

#endif
