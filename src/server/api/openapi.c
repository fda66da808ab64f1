/* /openapi.json, from the table of routes and the tables of parameters. */
#include <stdio.h>
#include <string.h>

#include "darkroom/darkroom.h"
#include "pipeline/request_parameters.h"
#include "server/api/schemas.h"
#include "server/api/state.h"

#define JOB_ID     "^(image|video)_[0-9a-f]{32}$"
#define MODEL_NAME "^[^\\x00-\\x1f\\x7f]+$"

static json_t *seed_schema(void)
{
    return json_pack("{s:[{s:s, s:i}, {s:s, s:s}, {s:s, s:i, s:i, s:{s:s, s:i}}]}", "oneOf",
                     "type", "integer", "minimum", 0, "type", "string", "pattern",
                     "^[0-9]{1,20}$", "type", "array", "minItems", 1, "maxItems", 10, "items",
                     "type", "integer", "minimum", 0);
}

static json_t *schema_of(const dk_parameter *parameter)
{
    json_t *schema = NULL;
    switch (parameter->type) {
    case DK_PARAMETER_TEXT:
        schema = json_pack("{s:s, s:i}", "type", "string", "maxLength",
                           parameter->max > 0 ? (int)parameter->max : 65536);
        break;
    case DK_PARAMETER_CHOICE:
    case DK_PARAMETER_LEVEL:
        schema = json_pack("{s:s, s:o}", "type", "string", "enum",
                           dk_parameter_choices_json(parameter));
        break;
    case DK_PARAMETER_INT:
        schema = json_pack("{s:s, s:i, s:i}", "type", "integer", "minimum", (int)parameter->min,
                           "maximum", (int)parameter->max);
        break;
    case DK_PARAMETER_REAL:
        schema = json_pack("{s:s, s:f, s:f}", "type", "number", "minimum", parameter->min,
                           "maximum", parameter->max);
        break;
    case DK_PARAMETER_SEED:
        schema = seed_schema();
        break;
    case DK_PARAMETER_BOOL:
        schema = json_pack("{s:s}", "type", "boolean");
        break;
    }
    char text[512];
    snprintf(text, sizeof text, "%s (default: %s)", parameter->help, parameter->default_text);
    json_object_set_new(schema, "description", json_string(text));
    return schema;
}

static void add_table(json_t *properties, const dk_parameter_table *table)
{
    for (int i = 0; i < table->count; i++) {
        json_object_set_new(properties, table->parameters[i].name,
                            schema_of(&table->parameters[i]));
    }
    json_object_set_new(json_object_get(properties, "size"), "pattern",
                        json_string("^([1-9][0-9]{0,4}x[1-9][0-9]{0,4}|auto)$"));
}

static json_t *body_schema(dk_api_body body)
{
    json_t *properties = json_object();
    for (int i = 0; i < dk_request_parameters.count; i++) {
        const dk_parameter *parameter = &dk_request_parameters.parameters[i];
        if (dk_api_takes_parameter(parameter)) {
            json_object_set_new(properties, parameter->name, schema_of(parameter));
        }
    }
    add_table(properties, body == DK_BODY_VIDEO ? &dk_api_video_fields : &dk_api_image_fields);
    json_t *required = json_pack("[s]", "prompt");
    if (body == DK_BODY_EDIT) {
        json_array_append_new(required, json_string("image"));
    }
    if (body == DK_BODY_EDIT || body == DK_BODY_VIDEO) {
        const char *const names[] = {body == DK_BODY_EDIT ? "image" : "input_reference",
                                     body == DK_BODY_EDIT ? "mask" : NULL};
        for (int i = 0; i < 2 && names[i] != NULL; i++) {
            json_object_set_new(properties, names[i],
                                json_pack("{s:s, s:s}", "type", "string", "description",
                                          "a picture: a file in a form; in JSON base64 or a "
                                          "data: URL"));
        }
    }
    return json_pack("{s:s, s:o, s:o, s:b}", "type", "object", "properties", properties,
                     "required", required, "additionalProperties", 0);
}

static json_t *request_body(dk_api_body body)
{
    static const char *const names[] = {[DK_BODY_IMAGE] = "ImageRequest",
                                        [DK_BODY_EDIT] = "EditRequest",
                                        [DK_BODY_VIDEO] = "VideoRequest",
                                        [DK_BODY_VERTEX] = "VertexRequest",
                                        [DK_BODY_OTHER] = "Object"};
    char reference[64];
    snprintf(reference, sizeof reference, "#/components/schemas/%s", names[body]);
    json_t *content =
        json_pack("{s:{s:{s:s}}}", "application/json", "schema", "$ref", reference);
    if (body != DK_BODY_OTHER && body != DK_BODY_VERTEX) {
        json_object_set_new(content, "multipart/form-data",
                            json_pack("{s:{s:s}}", "schema", "$ref", reference));
    }
    return json_pack("{s:b, s:o}", "required", 1, "content", content);
}

static json_t *response_of(const dk_api_route *route)
{
    char reference[64];
    bool media = route->reply != NULL && strchr(route->reply, '/') != NULL;
    if (media) {
        json_t *content = json_pack("{s:{}}", route->reply);
        return json_pack("{s:s, s:o}", "description", "the content", "content", content);
    }
    snprintf(reference, sizeof reference, "#/components/schemas/%s",
             route->status >= 400   ? "Error"
             : route->reply != NULL ? route->reply
                                    : "Object");
    json_t *content =
        json_pack("{s:{s:{s:s}}}", "application/json", "schema", "$ref", reference);
    if (route->body == DK_BODY_IMAGE || route->body == DK_BODY_EDIT) {
        json_object_set_new(content, "text/event-stream", json_object());
    }
    return json_pack("{s:s, s:o}", "description", "the answer", "content", content);
}

/* How a job that was made is found again: operations on it take its id from the reply. */
static json_t *links_of(const char *kind)
{
    json_t *links = json_object();
    for (int i = 0; i < dk_api_route_total; i++) {
        const dk_api_route *route = &dk_api_routes[i];
        if (strstr(route->http.pattern, "{id}") != NULL &&
            strstr(route->http.pattern, kind) != NULL) {
            json_object_set_new(links, route->id,
                                json_pack("{s:s, s:{s:s}}", "operationId", route->id,
                                          "parameters", "id", "$response.body#/id"));
        }
    }
    return links;
}

static json_t *responses_of(const dk_api_route *route)
{
    bool image = route->body == DK_BODY_IMAGE || route->body == DK_BODY_EDIT;
    bool makes = route->body != DK_BODY_NONE && route->status == 200 && route->reply != NULL &&
                 (image || strcmp(route->reply, "Job") == 0);
    char status[8];
    json_t *responses = json_object();
    snprintf(status, sizeof status, "%d", route->status);
    json_t *success = response_of(route);
    json_object_set_new(responses, status, success);
    if (makes) {
        json_t *links = links_of(image ? "/images/" : "/videos/");
        json_object_set(success, "links", links);
        json_object_set_new(responses, "202",
                            json_pack("{s:s, s:{s:{s:{s:s}}}, s:o}", "description",
                                      "the job, with async", "content", "application/json",
                                      "schema", "$ref", "#/components/schemas/Job", "links",
                                      links));
    }
    if (route->reply != NULL && strcmp(route->reply, "Health") == 0) {
        json_object_set_new(responses, "503", response_of(route));
    }
    if (strstr(route->http.pattern, "content") != NULL) {
        json_object_set_new(
            responses, "206",
            json_pack("{s:s, s:{s:{}}}", "description", "a part of it", "content", "*/*"));
    }
    json_object_set_new(responses, "default",
                        json_pack("{s:s, s:{s:{s:{s:s}}}}", "description", "an error",
                                  "content", "application/json", "schema", "$ref",
                                  "#/components/schemas/Error"));
    return responses;
}

static json_t *query_parameter(const char *name, size_t length)
{
    static const struct {
        const char *name, *type, *words, *pattern;
        int min, max;
    } known[] = {{"limit", "integer", NULL, NULL, 1, 100},
                 {"after", "string", NULL, JOB_ID, 0, 0},
                 {"order", "string", "asc desc", NULL, 0, 0},
                 {"unfinished", "string", "true false", NULL, 0, 0},
                 {"index", "integer", NULL, NULL, 0, 9},
                 {"variant", "string", "image video thumbnail spritesheet", NULL, 0, 0}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strncmp(known[i].name, name, length) == 0 && known[i].name[length] == '\0') {
            json_t *schema =
                json_pack("{s:s, s:s*}", "type", known[i].type, "pattern", known[i].pattern);
            if (known[i].max > 0) {
                json_object_set_new(schema, "minimum", json_integer(known[i].min));
                json_object_set_new(schema, "maximum", json_integer(known[i].max));
            }
            const char *word = known[i].words;
            json_t *words = json_array();
            while (word != NULL && *word != '\0') {
                size_t size = strcspn(word, " ");
                json_array_append_new(words, json_stringn(word, size));
                word += size + strspn(word + size, " ");
            }
            if (json_array_size(words) > 0) {
                json_object_set(schema, "enum", words);
            }
            json_decref(words);
            return json_pack("{s:s, s:s, s:o}", "name", known[i].name, "in", "query", "schema",
                             schema);
        }
    }
    return NULL;
}

static json_t *parameters_of(const dk_api_route *route)
{
    json_t *list = json_array();
    for (const char *at = route->query; at != NULL && *at != '\0';) {
        size_t length = strcspn(at, " ");
        json_t *parameter = query_parameter(at, length);
        if (parameter != NULL) {
            json_array_append_new(list, parameter);
        }
        at += length + strspn(at + length, " ");
    }
    const char *open = strchr(route->http.pattern, '{');
    if (open != NULL) {
        bool job = strstr(route->http.pattern, "s/{id}") != NULL &&
                   strstr(route->http.pattern, "models") == NULL;
        json_array_append_new(list, json_pack("{s:o, s:s, s:b, s:{s:s, s:s}}", "name",
                                              json_stringn(open + 1, strcspn(open + 1, "}")),
                                              "in", "path", "required", 1, "schema", "type",
                                              "string", "pattern", job ? JOB_ID : MODEL_NAME));
    }
    return list;
}

static json_t *operation_of(const dk_api_route *route)
{
    json_t *operation =
        json_pack("{s:s, s:s, s:o, s:o}", "operationId", route->id, "summary", route->summary,
                  "parameters", parameters_of(route), "responses", responses_of(route));
    if (route->body != DK_BODY_NONE) {
        json_object_set_new(operation, "requestBody", request_body(route->body));
    }
    if ((route->http.flags & DK_HTTP_OPEN) != 0) {
        json_object_set_new(operation, "security", json_array());
    }
    return operation;
}

static json_t *paths(void)
{
    json_t *all = json_object();
    for (int i = 0; i < dk_api_route_total; i++) {
        const dk_api_route *route = &dk_api_routes[i];
        char method[8] = "";
        for (size_t c = 0; route->http.method[c] != '\0' && c + 1 < sizeof method; c++) {
            method[c] = (char)(route->http.method[c] + ('a' - 'A'));
            method[c + 1] = '\0';
        }
        json_t *path = json_object_get(all, route->http.pattern);
        if (path == NULL) {
            path = json_object();
            json_object_set_new(all, route->http.pattern, path);
        }
        json_object_set_new(path, method, operation_of(route));
    }
    return all;
}

static json_t *schemas(void)
{
    json_t *all = dk_api_reply_schemas();
    json_object_set_new(all, "ImageRequest", body_schema(DK_BODY_IMAGE));
    json_object_set_new(all, "EditRequest", body_schema(DK_BODY_EDIT));
    json_object_set_new(all, "VideoRequest", body_schema(DK_BODY_VIDEO));
    return all;
}

void dk_api_openapi(void *context, dk_http_exchange *exchange, const dk_http_request *request)
{
    (void)request;
    const dk_api *api = context;
    json_t *key = json_pack("{s:{s:s, s:s}}", "key", "type", "http", "scheme", "bearer");
    json_t *document =
        json_pack("{s:s, s:{s:s, s:s}, s:o, s:{s:o, s:o}}", "openapi", "3.0.3", "info", "title",
                  "Darkroom", "version", dk_version(), "paths", paths(), "components",
                  "schemas", schemas(), "securitySchemes", key);
    if (api->options->with_keys) {
        json_object_set_new(document, "security", json_pack("[{s:[]}]", "key"));
    }
    dk_http_reply_json(exchange, 200, document);
}
