/* What a request will take. */
#include "engine/engine_state.h"

dk_status dk_engine_plan(dk_engine *engine, dk_request *request, dk_plan *plan, dk_error *err)
{
    DK_TRY(dk_request_check(request, engine, NULL, NULL, err));
    *plan = (dk_plan){0};
    return DK_OK;
}
