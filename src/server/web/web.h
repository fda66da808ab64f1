/* The page's files, embedded. */
#ifndef DK_SERVER_WEB_WEB_H
#define DK_SERVER_WEB_WEB_H

#include <stddef.h>

typedef struct dk_web_file {
    const char *name, *type; /* "app.js", "text/javascript; charset=utf-8" */
    const unsigned char *bytes;
    size_t size;
} dk_web_file;

const dk_web_file *dk_web_find(const char *name); /* NULL: there is none */

/* Made by the build from the files of this folder; ended by a NULL name. */
extern const dk_web_file dk_web_files[];

#endif
