/* The fields of dk_engine_options about several ranks, as flags. */
#ifndef DK_ENGINE_RANK_PARAMETERS_H
#define DK_ENGINE_RANK_PARAMETERS_H

#include "base/parameter.h"

extern const dk_parameter_table dk_rank_parameters;

#endif
