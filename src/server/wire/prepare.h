/* "prepare": a request that a worker will probably get next, as far as its prompts go. */
#ifndef DK_SERVER_WIRE_PREPARE_H
#define DK_SERVER_WIRE_PREPARE_H

#include <stdbool.h>

#include "server/wire/message.h"

enum { DK_PREPARE_TEXT_BYTES = 1 << 16 };

/* false, and no message: the request has no prompt, or a text longer than that. */
bool dk_prepare_pack(dk_message *message, const json_t *request);

/* An object with prompt and, where they are set, negative_prompt and guidance_scale; borrowed.
   NULL: the message has no such request, or it has other members, or values of other types or
   lengths. */
const json_t *dk_prepare_request(const dk_message *message);

#endif
