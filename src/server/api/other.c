/* Plans, LoRA's refusal, the page. */
#include <string.h>

#include "server/api/state.h"
#include "server/web/web.h"

void dk_api_plan(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    dk_api *api = context;
    dk_order order = {0};
    dk_error error = {0};
    json_t *plan = NULL, *defaults = dk_api_defaults(api);
    dk_status status = defaults == NULL
                           ? dk_fail(&error, DK_MEMORY, "the model is being loaded")
                           : dk_order_read(&order, "video", defaults, request, &error);
    if (status == DK_OK) {
        status = dk_service_plan(api->service, order.parameters, &plan, &error);
    }
    if (status == DK_OK) {
        json_object_set_new(plan, "outputs", json_integer(order.count));
        json_object_set_new(
            plan, "total_seconds",
            json_real(order.count * json_number_value(json_object_get(plan, "seconds"))));
        dk_http_reply_json(exchange, 200, plan);
    } else {
        dk_api_guess_param(&order, error.message);
        dk_api_fail(exchange, &error, order.param, NULL);
    }
    json_decref(defaults);
    dk_order_release(&order);
}

void dk_api_lora(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    (void)context;
    (void)request;
    dk_http_reply_error(exchange, DK_UNSUPPORTED,
                        "LoRA adapters are not supported yet: the engine runs a model's own "
                        "weights only",
                        NULL, "lora_not_supported");
}

void dk_api_page(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    (void)context;
    const char *name = request->captures[0] != NULL ? request->captures[0] : "index.html";
    const dk_web_file *file = dk_web_find(name);
    if (file == NULL) {
        dk_http_reply_error(exchange, DK_NOT_FOUND, "there is nothing here", NULL, NULL);
        return;
    }
    dk_http_add_header(
        exchange, "Content-Security-Policy",
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'");
    dk_http_add_header(exchange, "Referrer-Policy", "no-referrer");
    dk_http_add_header(exchange, "Cache-Control", "no-cache");
    dk_http_reply_static(exchange, file->type, file->bytes, file->size);
}
