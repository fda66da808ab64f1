/* HTML's named character references, as tables (entities.c is generated). */
#ifndef DK_TOKENIZER_ENTITIES_H
#define DK_TOKENIZER_ENTITIES_H

#include <stddef.h>

typedef struct dk_entity {
    const char *name; /* without '&'; with ';' where the name has one */
    const char *text; /* UTF-8 */
} dk_entity;

extern const dk_entity dk_entities_html5[];
extern const size_t dk_entities_html5_count;
extern const dk_entity dk_entities_upper[]; /* "EACUTE;" and the like, which ftfy accepts */
extern const size_t dk_entities_upper_count;

#endif
