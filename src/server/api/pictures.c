/* Pictures that come with a body. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "server/api/state.h"

void dk_pictures_release(dk_pictures *pictures)
{
    for (int i = 0; i < pictures->count; i++) {
        dk_free((void *)(uintptr_t)pictures->inputs[i].data);
    }
    *pictures = (dk_pictures){0};
}

dk_status dk_pictures_read(dk_api *api, const dk_http_request *request, const json_t *body,
                           bool required, dk_pictures *out, char *param, dk_error *err)
{
    (void)api;
    (void)request;
    (void)body;
    (void)out;
    (void)param;
    return required ? dk_fail(err, DK_UNSUPPORTED, "not yet") : DK_OK;
}
