/* Sending pictures and checkpoints, and storing checkpoints that come back. */
#include "server/scheduler/slot_files.h"

#include "base/file.h"

/* Nothing else is heard by the relay while the file is under way. */
static void announce(dk_slot *slot, size_t bytes)
{
    dk_message message;
    dk_error ignored;
    dk_message_pack(&message, "here", "{s:f}", "coming", (double)bytes);
    dk_status status = dk_slot_send(slot, &message, &ignored);
    (void)status; /* the file is not sent either then */
    dk_message_release(&message);
}

static dk_status send_file(dk_slot *slot, const char *path, dk_error *err)
{
    dk_message message;
    char *data;
    size_t size;
    if (path == NULL ||
        dk_file_read(&data, &size, path, DK_MESSAGE_BLOB_BYTES, NULL) != DK_OK) {
        return DK_OK;
    }
    if (size >= DK_MESSAGE_LARGE_BYTES) {
        announce(slot, size);
    }
    dk_message_pack(&message, "file", "{s:s}", "path", path);
    dk_message_add_blob(&message, data, size);
    dk_status status = dk_slot_send(slot, &message, err);
    dk_message_release(&message);
    return status;
}

dk_status dk_slot_send_files(dk_slot *slot, dk_task *const *tasks, int count, dk_error *err)
{
    for (int i = 0; i < count; i++) {
        const json_t *request = tasks[i]->request;
        DK_TRY(send_file(slot, json_string_value(json_object_get(request, "image_path")), err));
        DK_TRY(send_file(slot, json_string_value(json_object_get(request, "mask_path")), err));
        DK_TRY(send_file(slot, tasks[i]->checkpoint, err));
    }
    return DK_OK;
}

dk_status dk_slot_take_file(dk_slot *slot, const dk_message *message, dk_error *err)
{
    const dk_task *task = dk_slot_find(slot, dk_message_text(message, "task"));
    if (message->blob_count != 1) {
        return dk_fail(err, DK_FORMAT, "message: a file is one binary part");
    }
    return task == NULL || task->checkpoint == NULL
               ? DK_OK
               : dk_file_write(task->checkpoint, message->blobs[0].data, message->blobs[0].size,
                               err);
}
