/* Keeping, naming and sending back files of another host. */
#include "server/worker/relay_files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"

static const char *const picture_fields[] = {"image_path", "mask_path"};
enum { PICTURE_FIELDS = sizeof picture_fields / sizeof *picture_fields };

typedef struct kept {
    char *path;  /* owned: on the server's host */
    char *local; /* owned: here, in a folder of its own, under the same name */
    char *task;  /* owned: whose checkpoint it is; NULL: nobody's */
    dk_file_stamp sent;
    struct kept *next;
} kept;

struct dk_relay_files {
    const char *base;
    char *folder; /* owned; NULL: there is no file */
    kept *first;
    int count; /* of all that were kept so far */
    bool on_its_way;
};

dk_relay_files *dk_relay_files_create(const char *base)
{
    dk_relay_files *files = dk_alloc(sizeof *files);
    files->base = base;
    return files;
}

static void release_one(kept *file)
{
    dk_free(file->path);
    dk_free(file->local);
    dk_free(file->task);
    dk_free(file);
}

void dk_relay_files_clear(dk_relay_files *files)
{
    while (files->first != NULL) {
        kept *file = files->first;
        files->first = file->next;
        release_one(file);
    }
    if (files->folder != NULL) {
        dk_remove_tree(files->folder); /* and what a worker left there that was killed */
    }
    dk_free(files->folder);
    files->folder = NULL;
    files->on_its_way = false;
}

void dk_relay_files_destroy(dk_relay_files **files)
{
    dk_relay_files *f = *files;
    if (f == NULL) {
        return;
    }
    dk_relay_files_clear(f);
    dk_free(f);
    *files = NULL;
}

static dk_status make_folder(dk_relay_files *files, dk_error *err)
{
    char *folder = dk_path_join(files->base, "darkroom-relay-XXXXXX");
    if (mkdtemp(folder) == NULL) {
        dk_status status = dk_fail(err, DK_IO, "%s: %s", folder, strerror(errno));
        dk_free(folder);
        return status;
    }
    files->folder = folder;
    return DK_OK;
}

/* Nothing of the path but its name becomes part of the one here. */
static dk_status make_place(dk_relay_files *files, const char *path, kept **out, dk_error *err)
{
    const char *name = dk_path_name(path);
    bool is_name = name[0] != '\0' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
    dk_string local = DK_STRING_EMPTY;
    if (files->folder == NULL) {
        DK_TRY(make_folder(files, err));
    }
    dk_string_printf(&local, "%s/%d", files->folder, files->count++);
    dk_status status = dk_make_folders(dk_string_text(&local), err);
    if (status != DK_OK) {
        dk_string_release(&local);
        return status;
    }
    dk_string_printf(&local, "/%s", is_name ? name : "file");
    kept *file = dk_alloc(sizeof *file);
    *file =
        (kept){.path = dk_strdup(path), .local = dk_string_take(&local), .next = files->first};
    files->first = file;
    *out = file;
    return DK_OK;
}

dk_status dk_relay_files_keep(dk_relay_files *files, const dk_message *message, dk_error *err)
{
    kept *file;
    if (message->blob_count != 1) {
        return dk_fail(err, DK_FORMAT, "message: a file is one binary part");
    }
    DK_TRY(make_place(files, dk_message_text(message, "path"), &file, err));
    return dk_file_write(file->local, message->blobs[0].data, message->blobs[0].size, err);
}

static kept *find(const dk_relay_files *files, const char *path)
{
    kept *file = files->first;
    while (file != NULL && strcmp(file->path, path) != 0) {
        file = file->next;
    }
    return file;
}

static bool has_folder(const char *path)
{
    char *folder = dk_strdup(path), *slash = strrchr(folder, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    bool there = slash != NULL && access(folder, W_OK | X_OK) == 0;
    dk_free(folder);
    return there;
}

static bool sees_picture(const json_t *request, const char *field)
{
    const char *path = json_string_value(json_object_get(request, field));
    return path == NULL || access(path, R_OK) == 0;
}

static bool sees_files(const json_t *entry)
{
    const json_t *request = json_object_get(entry, "request");
    const char *checkpoint = json_string_value(json_object_get(entry, "checkpoint"));
    bool sees = checkpoint == NULL || has_folder(checkpoint);
    for (int i = 0; i < PICTURE_FIELDS; i++) {
        sees = sees && sees_picture(request, picture_fields[i]);
    }
    return sees;
}

/* A picture that the scheduler could not read stays where it is said to be: the worker says
   what is wrong with it. */
static void use_pictures(const dk_relay_files *files, json_t *request)
{
    for (int i = 0; i < PICTURE_FIELDS; i++) {
        const char *path = json_string_value(json_object_get(request, picture_fields[i]));
        const kept *file = path != NULL ? find(files, path) : NULL;
        if (file != NULL) {
            json_object_set_new(request, picture_fields[i], json_string(file->local));
        }
    }
}

/* One that was not sent begins here. Without a place for it the task begins anew when it is
   lost. */
static void use_checkpoint(dk_relay_files *files, json_t *entry)
{
    const char *path = json_string_value(json_object_get(entry, "checkpoint"));
    const char *task = json_string_value(json_object_get(entry, "task"));
    if (path == NULL || has_folder(path)) {
        return;
    }
    kept *file = find(files, path);
    if (file == NULL && make_place(files, path, &file, NULL) != DK_OK) {
        json_object_del(entry, "checkpoint");
        return;
    }
    file->task = dk_strdup(task != NULL ? task : "");
    file->sent = dk_file_stamp_of(file->local);
    json_object_set_new(entry, "checkpoint", json_string(file->local));
}

bool dk_relay_files_use(dk_relay_files *files, dk_message *run)
{
    json_t *entry, *tasks = json_object_get(run->header, "tasks");
    bool sent = json_is_true(json_object_get(run->header, "sent"));
    size_t at;
    json_array_foreach(tasks, at, entry)
    {
        if (!sent && !sees_files(entry)) {
            return false;
        }
    }
    json_array_foreach(tasks, at, entry)
    {
        use_pictures(files, json_object_get(entry, "request"));
        use_checkpoint(files, entry);
    }
    return true;
}

static bool is_same(dk_file_stamp a, dk_file_stamp b)
{
    return a.bytes == b.bytes && a.changed_ns == b.changed_ns;
}

bool dk_relay_files_changed(dk_relay_files *files, dk_message *out)
{
    for (kept *file = files->first; file != NULL && !files->on_its_way; file = file->next) {
        char *data;
        size_t size;
        if (file->task == NULL || is_same(file->sent, dk_file_stamp_of(file->local))) {
            continue;
        }
        file->sent = dk_file_stamp_of(file->local);
        if (dk_file_read(&data, &size, file->local, DK_MESSAGE_BLOB_BYTES, NULL) == DK_OK) {
            dk_message_pack(out, "file", "{s:s}", "task", file->task);
            dk_message_add_blob(out, data, size);
            files->on_its_way = true;
            return true;
        }
    }
    return false;
}

void dk_relay_files_arrived(dk_relay_files *files)
{
    files->on_its_way = false;
}
