/* What replies and Vertex AI's bodies look like, for /openapi.json. */
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "server/api/schemas.h"

/* JSON with ' for ". */
static const char schemas[] =
    "{'Object': {'type': 'object'},"
    "'Error': {'type': 'object', 'required': ['error'], 'properties': {'error': {"
    "  'type': 'object', 'required': ['message', 'type', 'param', 'code'], 'properties': {"
    "  'message': {'type': 'string', 'minLength': 1},"
    "  'type': {'type': 'string',"
    "    'enum': ['invalid_request_error', 'rate_limit_error', 'server_error']},"
    "  'param': {'type': 'string', 'nullable': true},"
    "  'code': {'type': 'string', 'nullable': true}}}}},"
    "'Seed': {'oneOf': [{'type': 'integer', 'minimum': 0},"
    "  {'type': 'string', 'pattern': '^[0-9]{16,20}$'}]},"
    "'Output': {'type': 'object', 'required': ['index', 'seed', 'done', 'url', 'format'],"
    "  'properties': {"
    "  'index': {'type': 'integer', 'minimum': 0, 'maximum': 9},"
    "  'seed': {'$ref': '#/components/schemas/Seed'}, 'done': {'type': 'boolean'},"
    "  'url': {'type': 'string'}, 'format': {'type': 'string'},"
    "  'bytes': {'type': 'integer', 'minimum': 0},"
    "  'recipe': {'type': 'object', 'nullable': true}, 'engine_ms': {'type': 'number'}}},"
    "'Job': {'type': 'object', 'required': ['id', 'object', 'model', 'status', 'progress',"
    "  'created_at', 'started_at', 'completed_at', 'expires_at', 'prompt', 'size', 'seed',"
    "  'seeds', 'n', 'queue_position', 'eta_s', 'error', 'inference_time_s', 'outputs',"
    "  'parameters'], 'properties': {"
    "  'id': {'type': 'string', 'pattern': '^(image|video)_[0-9a-f]{32}$'},"
    "  'object': {'type': 'string', 'enum': ['image', 'video']},"
    "  'model': {'type': 'string'},"
    "  'status': {'type': 'string',"
    "    'enum': ['queued', 'in_progress', 'completed', 'failed', 'cancelled']},"
    "  'progress': {'type': 'integer', 'minimum': 0, 'maximum': 100},"
    "  'created_at': {'type': 'integer'},"
    "  'started_at': {'type': 'integer', 'nullable': true},"
    "  'completed_at': {'type': 'integer', 'nullable': true},"
    "  'expires_at': {'type': 'integer', 'nullable': true},"
    "  'prompt': {'type': 'string'},"
    "  'size': {'type': 'string', 'pattern': '^[0-9]+x[0-9]+$'},"
    "  'seconds': {'type': 'string'},"
    "  'seed': {'$ref': '#/components/schemas/Seed'},"
    "  'seeds': {'type': 'array', 'minItems': 1, 'maxItems': 10,"
    "    'items': {'$ref': '#/components/schemas/Seed'}},"
    "  'n': {'type': 'integer', 'minimum': 1, 'maximum': 10},"
    "  'attempts': {'type': 'integer', 'minimum': 0},"
    "  'queue_position': {'type': 'integer', 'minimum': 0, 'nullable': true},"
    "  'eta_s': {'type': 'number', 'minimum': 0, 'nullable': true},"
    "  'error': {'type': 'object', 'nullable': true, 'required': ['code', 'message']},"
    "  'inference_time_s': {'type': 'number', 'minimum': 0, 'nullable': true},"
    "  'outputs': {'type': 'array', 'minItems': 1,"
    "    'items': {'$ref': '#/components/schemas/Output'}},"
    "  'parameters': {'type': 'object', 'required': ['prompt', 'seed', 'output_format']}}},"
    "'JobList': {'type': 'object',"
    "  'required': ['object', 'data', 'has_more', 'first_id', 'last_id'], 'properties': {"
    "  'object': {'type': 'string', 'enum': ['list']},"
    "  'data': {'type': 'array', 'maxItems': 100,"
    "    'items': {'$ref': '#/components/schemas/Job'}},"
    "  'has_more': {'type': 'boolean'},"
    "  'first_id': {'type': 'string', 'nullable': true},"
    "  'last_id': {'type': 'string', 'nullable': true}}},"
    "'Deleted': {'type': 'object', 'required': ['id', 'object', 'deleted'], 'properties': {"
    "  'object': {'type': 'string', 'enum': ['image.deleted', 'video.deleted']},"
    "  'deleted': {'type': 'boolean'}}},"
    "'Images': {'type': 'object', 'required': ['id', 'created', 'data', 'size',"
    "  'output_format', 'background', 'quality', 'usage'], 'properties': {"
    "  'created': {'type': 'integer'},"
    "  'data': {'type': 'array', 'minItems': 1, 'items': {'type': 'object',"
    "    'required': ['seed', 'revised_prompt'], 'properties': {"
    "    'b64_json': {'type': 'string'}, 'url': {'type': 'string'},"
    "    'revised_prompt': {'type': 'string', 'nullable': true},"
    "    'seed': {'$ref': '#/components/schemas/Seed'}}}},"
    "  'output_format': {'type': 'string', 'enum': ['png', 'jpeg', 'webp']},"
    "  'background': {'type': 'string', 'enum': ['opaque']}}},"
    "'Plan': {'type': 'object', 'required': ['peak_bytes', 'weight_bytes', 'flops',"
    "  'seconds', 'step_seconds', 'budget_bytes', 'fits', 'num_frames', 'outputs'],"
    "  'properties': {'fits': {'type': 'boolean'},"
    "  'peak_bytes': {'type': 'number', 'minimum': 0},"
    "  'weight_bytes': {'type': 'number', 'minimum': 0},"
    "  'flops': {'type': 'number', 'minimum': 0},"
    "  'seconds': {'type': 'number', 'minimum': 0},"
    "  'outputs': {'type': 'integer', 'minimum': 1, 'maximum': 10}}},"
    "'Model': {'type': 'object', 'required': ['id', 'object', 'created', 'owned_by'],"
    "  'properties': {'object': {'type': 'string', 'enum': ['model']}}},"
    "'ModelList': {'type': 'object', 'required': ['object', 'data'], 'properties': {"
    "  'data': {'type': 'array', 'items': {'$ref': '#/components/schemas/Model'}}}},"
    "'Health': {'type': 'object', 'required': ['status'], 'properties': {"
    "  'status': {'type': 'string', 'enum': ['ready', 'loading', 'alive']}}},"
    "'VertexRequest': {'type': 'object', 'required': ['instances'], 'properties': {"
    "  'instances': {'type': 'array', 'minItems': 1, 'maxItems': 8,"
    "    'items': {'type': 'object'}},"
    "  'parameters': {'type': 'object'}}},"
    "'Predictions': {'type': 'object', 'required': ['predictions'], 'properties': {"
    "  'predictions': {'type': 'array', 'items': {'type': 'object',"
    "    'required': ['id', 'status', 'images']}}}}}";

json_t *dk_api_reply_schemas(void)
{
    json_t *value = NULL;
    dk_error ignored;
    char *text = dk_strdup(schemas);
    for (char *c = text; *c != '\0'; c++) {
        *c = *c == '\'' ? '"' : *c;
    }
    if (dk_json_parse(&value, text, strlen(text), "schemas", &ignored) != DK_OK) {
        value = json_object();
    }
    dk_free(text);
    return value;
}
