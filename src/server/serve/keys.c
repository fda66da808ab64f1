/* Reading API keys. */
#include "server/serve/keys.h"

#include <string.h>

#include "base/alloc.h"
#include "base/file.h"

static void add(dk_serve_keys *keys, const char *key)
{
    size_t count = (size_t)keys->count + 1;
    keys->keys = dk_realloc(keys->keys, count * sizeof *keys->keys);
    keys->keys[keys->count++] = key;
}

dk_status dk_serve_keys_read(dk_serve_keys *out, const char *key, const char *file,
                             dk_error *err)
{
    enum { MOST = 1024 * 1024 };
    size_t size;
    *out = (dk_serve_keys){0};
    if (key != NULL) {
        add(out, key);
    }
    if (file == NULL) {
        return DK_OK;
    }
    dk_status status = dk_file_read(&out->text, &size, file, MOST, err);
    if (status != DK_OK) {
        dk_serve_keys_release(out);
        return status;
    }
    int before = out->count;
    char *rest = out->text;
    for (char *line = strsep(&rest, "\r\n"); line != NULL; line = strsep(&rest, "\r\n")) {
        line += strspn(line, " \t");
        line[strcspn(line, " \t")] = '\0';
        if (line[0] != '\0' && line[0] != '#') {
            add(out, line);
        }
    }
    if (out->count == before) {
        dk_serve_keys_release(out);
        return dk_fail(err, DK_FORMAT, "%s: no keys, expected one per line", file);
    }
    return DK_OK;
}

void dk_serve_keys_release(dk_serve_keys *keys)
{
    dk_free(keys->keys);
    dk_free(keys->text);
    *keys = (dk_serve_keys){0};
}
