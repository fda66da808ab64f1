/* Finding a file of the page. */
#include "server/web/web.h"

#include <string.h>

const dk_web_file *dk_web_find(const char *name)
{
    for (const dk_web_file *file = dk_web_files; file->name != NULL; file++) {
        if (strcmp(file->name, name) == 0) {
            return file;
        }
    }
    return NULL;
}
