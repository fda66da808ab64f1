/* The table of dk_engine_options' fields that users set. */
#ifndef DK_ENGINE_OPTION_PARAMETERS_H
#define DK_ENGINE_OPTION_PARAMETERS_H

#include "base/parameter.h"

extern const dk_parameter_table dk_option_parameters;

#endif
