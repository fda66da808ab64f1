/* Reading bodies. */
#include "server/api/order.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/json.h"
#include "pipeline/request_parameters.h"

static dk_status fail_field(dk_order *order, const char *name, dk_error *err, const char *text)
{
    snprintf(order->param, sizeof order->param, "%s", name);
    return dk_fail(err, DK_INVALID, "%s", text);
}

/* Forms name lists "image[]", JSON does not. */
bool dk_order_is_picture(const char *name)
{
    static const char *const names[] = {"image",  "image[]", "mask", "input_reference",
                                        "images", "url",     "url[]"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* JSON of a request: a fault in it is the request's, not a file's. */
static dk_status parse(json_t **out, const char *text, size_t size, const char *where,
                       dk_error *err)
{
    dk_error fault = {0};
    return dk_json_parse(out, text, size, where, &fault) == DK_OK
               ? DK_OK
               : dk_fail(err, DK_INVALID, "%s", fault.message);
}

dk_status dk_body_read(json_t **out, const dk_http_request *request, dk_error *err)
{
    if (request->body != NULL) {
        json_t *body;
        DK_TRY(parse(&body, request->body, request->body_size, "the body", err));
        if (!json_is_object(body)) {
            dk_status status = dk_fail(err, DK_INVALID, "the body is %s, expected an object",
                                       dk_json_type_name(body));
            json_decref(body);
            return status;
        }
        *out = body;
        return DK_OK;
    }
    json_t *body = json_object();
    for (int i = 0; i < request->part_count; i++) {
        const dk_http_part *part = &request->parts[i];
        json_t *text =
            part->file_name == NULL ? json_stringn(part->data, part->size) : json_null();
        if (text == NULL || strlen(part->name) == 0) {
            json_decref(body);
            return dk_fail(err, DK_INVALID, "field '%.60s' is not UTF-8", part->name);
        }
        if (part->file_name == NULL && !dk_order_is_picture(part->name)) {
            json_object_set(body, part->name, text);
        }
        json_decref(text);
    }
    *out = body;
    return DK_OK;
}

/* A value as the table wants it; texts stand for numbers too, as forms and some clients send
   them. */
static dk_status set(dk_order *order, const dk_parameter *parameter, void *object,
                     const json_t *value, dk_error *err)
{
    bool words = parameter->type == DK_PARAMETER_TEXT || parameter->type == DK_PARAMETER_CHOICE;
    dk_status status =
        json_is_string(value) && !words
            ? dk_parameter_set_text(parameter, object, json_string_value(value),
                                    parameter->name, err)
            : dk_parameter_set_json(parameter, object, value, parameter->name, err);
    if (status != DK_OK) {
        snprintf(order->param, sizeof order->param, "%s", parameter->name);
    }
    return status;
}

static dk_status fail_unknown(dk_order *order, const char *name, const dk_parameter_table *own,
                              dk_error *err)
{
    char text[256];
    const char *near = NULL;
    int least = 4;
    const dk_parameter_table *const tables[] = {own, &dk_request_parameters};
    for (int t = 0; t < 2; t++) {
        for (int i = 0; i < tables[t]->count; i++) {
            const char *known = tables[t]->parameters[i].name;
            int distance = dk_name_distance(name, known);
            if (distance < least) {
                least = distance;
                near = known;
            }
        }
    }
    snprintf(text, sizeof text, "unknown field '%.60s'%s%s%s", name,
             near != NULL ? ", did you mean " : "", near != NULL ? near : "",
             near != NULL ? "?" : "");
    return fail_field(order, name, err, text);
}

static dk_status read_fields(dk_order *order, json_t *known, dk_error *err)
{
    const dk_parameter_table *own =
        strcmp(order->kind, "image") == 0 ? &dk_api_image_fields : &dk_api_video_fields;
    dk_request request = {0};
    const char *name;
    json_t *value;
    json_object_foreach(order->body, name, value)
    {
        const dk_parameter *field = dk_parameter_find(own, name);
        const dk_parameter *parameter = dk_parameter_find(&dk_request_parameters, name);
        if (json_is_null(value) || dk_order_is_picture(name) || strcmp(name, "seed") == 0) {
            continue;
        }
        if (field != NULL) {
            DK_TRY(set(order, field, &order->fields, value, err));
        } else if (parameter != NULL && dk_api_takes_parameter(parameter)) {
            DK_TRY(set(order, parameter, &request, value, err));
            json_object_set_new(known, parameter->name,
                                dk_parameter_get_json(parameter, &request));
        } else {
            return fail_unknown(order, name, own, err);
        }
    }
    return DK_OK;
}

/* "WIDTHxHEIGHT" */
static dk_status read_size(dk_order *order, dk_error *err)
{
    const char *size = order->fields.size;
    int width = 0, height = 0, used = 0;
    if (size == NULL || strcmp(size, "auto") == 0) {
        return DK_OK;
    }
    if (sscanf(size, "%5dx%5d%n", &width, &height, &used) != 2 || size[used] != '\0' ||
        width < 1 || height < 1) {
        return fail_field(order, "size", err,
                          "size is no size, accepted are WIDTHxHEIGHT, such as 832x480, and "
                          "auto");
    }
    const struct {
        const char *name;
        int value;
    } sides[] = {{"width", width}, {"height", height}};
    for (int i = 0; i < 2; i++) {
        const json_t *said = json_object_get(order->parameters, sides[i].name);
        if (said == NULL) {
            json_object_set_new(order->parameters, sides[i].name, json_integer(sides[i].value));
        } else if (json_integer_value(said) != sides[i].value) {
            return fail_field(order, "size", err, "size and width or height differ");
        }
    }
    return DK_OK;
}

static uint64_t random_seed(void)
{
    uint32_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
        seed = 42;
    }
    return seed;
}

static dk_status read_seed(dk_order *order, const json_t *value, uint64_t *seed, dk_error *err)
{
    dk_request request = {0};
    const dk_parameter *parameter = dk_parameter_find(&dk_request_parameters, "seed");
    DK_TRY(set(order, parameter, &request, value, err));
    *seed = request.seed;
    return DK_OK;
}

/* A number, digits, or a list of them; in forms the list is JSON text. */
static dk_status read_seeds(dk_order *order, dk_error *err)
{
    json_t *value = json_incref(json_object_get(order->body, "seed"));
    const char *text = json_string_value(value);
    dk_status status = DK_OK;
    if (text != NULL && text[0] == '[') {
        json_decref(value);
        value = NULL;
        snprintf(order->param, sizeof order->param, "seed");
        status = parse(&value, text, strlen(text), "seed", err);
    }
    size_t listed = json_is_array(value) ? json_array_size(value) : 0;
    if (status == DK_OK && json_is_array(value) &&
        (listed == 0 || listed > DK_ORDER_MAX_OUTPUTS ||
         (order->fields.n > 0 && (size_t)order->fields.n != listed))) {
        status = fail_field(order, "seed", err,
                            "seed is a list: it needs one seed per output, up to 10");
    }
    order->count = listed > 0 ? (int)listed : order->fields.n > 0 ? order->fields.n : 1;
    for (int i = 0; i < order->count && status == DK_OK; i++) {
        if (listed > 0) {
            status = read_seed(order, json_array_get(value, (size_t)i), &order->seeds[i], err);
        } else if (i > 0) {
            order->seeds[i] = order->seeds[0] + (uint64_t)i;
        } else if (value == NULL || json_is_null(value) || (text != NULL && text[0] == '\0')) {
            order->seeds[0] = random_seed();
        } else {
            status = read_seed(order, value, &order->seeds[0], err);
        }
    }
    json_decref(value);
    return status;
}

static dk_status read_length(dk_order *order, const json_t *defaults, dk_error *err)
{
    const json_t *said = json_object_get(order->parameters, "num_frames");
    if (strcmp(order->kind, "image") == 0) {
        if (said != NULL && json_integer_value(said) != 1) {
            return fail_field(order, "num_frames", err,
                              "num_frames is for videos, a picture has 1 (POST /v1/videos)");
        }
        json_object_set_new(order->parameters, "num_frames", json_integer(1));
    } else if (said == NULL && !isnan(order->fields.seconds)) {
        const json_t *fps = json_object_get(order->parameters, "fps");
        fps = fps != NULL ? fps : json_object_get(defaults, "fps");
        double frames = round(order->fields.seconds * json_number_value(fps)) + 1;
        json_object_set_new(order->parameters, "num_frames",
                            json_integer((json_int_t)(frames < 4097 ? frames : 4097)));
    }
    return DK_OK;
}

static void choose_file(dk_order *order)
{
    static const struct {
        const char *word;
        int quality;
    } words[] = {{"low", 35}, {"medium", 55}, {"high", 90}, {"hd", 90}, {"maximum", 100}};
    const dk_api_fields *f = &order->fields;
    bool image = strcmp(order->kind, "image") == 0;
    order->extension = f->output_format != NULL ? f->output_format : image ? "png" : "mp4";
    if (strcmp(order->extension, "jpeg") == 0) {
        order->extension = "jpg";
    }
    order->quality = f->output_quality > 0 ? f->output_quality : f->output_compression;
    for (size_t i = 0; i < sizeof words / sizeof *words && order->quality == 0; i++) {
        if (f->quality != NULL && strcmp(f->quality, words[i].word) == 0) {
            order->quality = words[i].quality;
        }
    }
}

static dk_status check_prompt(dk_order *order, dk_error *err)
{
    const char *prompt = json_string_value(json_object_get(order->parameters, "prompt"));
    if (prompt == NULL) {
        return fail_field(order, "prompt", err, "prompt is missing, accepted is a text");
    }
    return DK_OK;
}

static dk_status read_all(dk_order *order, const json_t *defaults, dk_error *err)
{
    dk_api_fields_init(&order->fields);
    order->parameters = json_object();
    DK_TRY(read_fields(order, order->parameters, err));
    DK_TRY(check_prompt(order, err));
    DK_TRY(read_size(order, err));
    DK_TRY(read_seeds(order, err));
    DK_TRY(read_length(order, defaults, err));
    choose_file(order);
    json_t *complete = json_copy((json_t *)(uintptr_t)defaults);
    json_object_update(complete, order->parameters);
    json_object_del(complete, "seed");
    json_object_del(complete, "num_outputs_per_prompt");
    json_object_del(complete, "initial_latents_first");
    json_decref(order->parameters);
    order->parameters = complete;
    return DK_OK;
}

dk_status dk_order_read(dk_order *order, const char *kind, const json_t *defaults,
                        const dk_http_request *request, dk_error *err)
{
    *order = (dk_order){.kind = kind};
    DK_TRY(dk_body_read(&order->body, request, err));
    return read_all(order, defaults, err);
}

dk_status dk_order_read_json(dk_order *order, const char *kind, const json_t *defaults,
                             const json_t *body, dk_error *err)
{
    *order = (dk_order){.kind = kind, .body = json_incref((json_t *)(uintptr_t)body)};
    return read_all(order, defaults, err);
}

void dk_order_release(dk_order *order)
{
    json_decref(order->body);
    json_decref(order->parameters);
    *order = (dk_order){0};
}

void dk_order_suit_picture(dk_order *order, const json_t *defaults, int width, int height)
{
    enum { UNIT = 16 };
    const char *size = order->fields.size;
    bool said = (size != NULL && strcmp(size, "auto") != 0) ||
                json_object_get(order->body, "width") != NULL ||
                json_object_get(order->body, "height") != NULL;
    double area = json_number_value(json_object_get(defaults, "width")) *
                  json_number_value(json_object_get(defaults, "height"));
    double scale = sqrt(area / ((double)width * height));
    if (said || !(scale > 0)) {
        return;
    }
    if (width % UNIT == 0 && height % UNIT == 0 && scale >= 1) {
        scale = 1; /* it suits as it is */
    }
    double wide = round(width * scale / UNIT) * UNIT,
           high = round(height * scale / UNIT) * UNIT;
    json_object_set_new(order->parameters, "width",
                        json_integer((json_int_t)(wide > UNIT ? wide : UNIT)));
    json_object_set_new(order->parameters, "height",
                        json_integer((json_int_t)(high > UNIT ? high : UNIT)));
}
