/* Finding and loading modules. */
#include "base/load_module.h"

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/environment.h"
#include "base/file.h"
#include "base/string.h"

/* Folders to look in, as owned paths: the user's, or the program's own and the installed one.
 */
static int list_folders(char *folders[2])
{
    const char *given = dk_environment("DARKROOM_MODULE_PATH");
    if (given != NULL) {
        folders[0] = dk_strdup(given);
        return 1;
    }
    char program[4096];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(program, '/');
    if (slash == NULL) {
        return 0;
    }
    *slash = '\0';
    folders[0] = dk_strdup(program);
    folders[1] = dk_path_join(program, "../lib/darkroom");
    return 2;
}

static dk_status load_from(void **handle, void **get, const char *path, const char *symbol,
                           dk_error *err)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return dk_fail(err, DK_UNSUPPORTED, "%s cannot be loaded: %s", path, dlerror());
    }
    void *found = dlsym(library, symbol);
    if (found == NULL) {
        dlclose(library);
        return dk_fail(err, DK_UNSUPPORTED, "%s: not a module of Darkroom, it has no '%s'",
                       path, symbol);
    }
    *handle = library;
    *get = found;
    return DK_OK;
}

dk_status dk_module_load(void **handle, void **get, char **path, const char *kind,
                         const char *symbol, const char *builds, dk_error *err)
{
    char *folders[2] = {0};
    dk_string name = DK_STRING_EMPTY, places = DK_STRING_EMPTY;
    dk_status status = DK_NOT_FOUND;
    dk_string_printf(&name, "libdarkroom-%s.so", kind);
    int count = list_folders(folders);
    for (int i = 0; i < count && status == DK_NOT_FOUND; i++) {
        char *at = dk_path_join(folders[i], name.data);
        if (dk_path_exists(at)) {
            status = load_from(handle, get, at, symbol, err);
        }
        dk_string_printf(&places, "%s%s", i > 0 ? ", " : "", at);
        if (status == DK_OK && path != NULL) {
            *path = dk_strdup(at);
        }
        dk_free(at);
    }
    if (status == DK_NOT_FOUND) {
        status = dk_fail(err, DK_NOT_FOUND,
                         "the module for '%s' is not there, looked for %s: %s, "
                         "DARKROOM_MODULE_PATH names another folder",
                         kind, dk_string_text(&places), builds);
    }
    for (int i = 0; i < count; i++) {
        dk_free(folders[i]);
    }
    dk_string_release(&name);
    dk_string_release(&places);
    return status;
}

void dk_module_unload(void *handle)
{
    if (handle != NULL) {
        dlclose(handle);
    }
}
