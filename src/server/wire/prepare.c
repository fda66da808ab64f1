/* Messages of type "prepare", written and strictly read. */
#include "server/wire/prepare.h"

#include <string.h>

static const char *const members[] = {"prompt", "negative_prompt", "guidance_scale"};
enum { MEMBERS = sizeof members / sizeof *members, NUMBER = 2 };

/* Which of the members it is; -1: none. */
static int member_of(const char *name)
{
    int found = -1;
    for (int i = 0; i < MEMBERS; i++) {
        found = strcmp(name, members[i]) == 0 ? i : found;
    }
    return found;
}

static bool is_value(int member, const json_t *value)
{
    return member == NUMBER
               ? json_is_number(value)
               : json_is_string(value) && json_string_length(value) <= DK_PREPARE_TEXT_BYTES;
}

bool dk_prepare_pack(dk_message *message, const json_t *request)
{
    json_t *kept = json_object();
    bool good = json_object_get(request, members[0]) != NULL;
    for (int i = 0; i < MEMBERS; i++) {
        json_t *value = json_object_get(request, members[i]);
        if (value != NULL && !json_is_null(value)) {
            good = good && is_value(i, value);
            json_object_set(kept, members[i], value);
        }
    }
    if (good) {
        dk_message_pack(message, "prepare", "{s:O}", "request", kept);
    }
    json_decref(kept);
    return good;
}

const json_t *dk_prepare_request(const dk_message *message)
{
    json_t *request = json_object_get(message->header, "request"), *value;
    const char *name;
    bool good = json_is_string(json_object_get(request, members[0]));
    json_object_foreach(request, name, value)
    {
        int member = member_of(name);
        good = good && member >= 0 && is_value(member, value);
    }
    return good ? request : NULL;
}
