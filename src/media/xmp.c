/* XMP packets around a recipe (XMP specification part 1, "serialized as RDF/XML"). */
#include <stdlib.h>
#include <string.h>

#include "base/string.h"
#include "media/formats.h"

#define TAG_OPEN  "<darkroom:recipe>"
#define TAG_CLOSE "</darkroom:recipe>"

static const char head[] =
    "<?xpacket begin=\"\xEF\xBB\xBF\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>"
    "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">"
    "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">"
    "<rdf:Description rdf:about=\"\" xmlns:darkroom=\"urn:darkroom:recipe\">" TAG_OPEN;
static const char tail[] =
    TAG_CLOSE "</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end=\"r\"?>";

typedef struct entity {
    char character;
    const char *name;
} entity;

/* '>' because of "]]>"; the line breaks because XML readers would turn them into '\n'. */
static const entity entities[] = {
    {'&', "&amp;"},   {'<', "&lt;"},   {'>', "&gt;"},   {'"', "&quot;"},
    {'\'', "&apos;"}, {'\r', "&#13;"}, {'\n', "&#10;"},
};

enum { ENTITY_COUNT = sizeof entities / sizeof *entities };

void dk_xmp_write(dk_string *out, const char *recipe)
{
    dk_string_puts(out, head);
    for (const char *p = recipe; *p != '\0'; p++) {
        const entity *found = NULL;
        for (int i = 0; i < ENTITY_COUNT && found == NULL; i++) {
            found = entities[i].character == *p ? &entities[i] : NULL;
        }
        if (found != NULL) {
            dk_string_puts(out, found->name);
        } else {
            dk_string_putc(out, *p);
        }
    }
    dk_string_puts(out, tail);
}

/* The first place of `word` in text, or NULL. */
static const char *find(const char *text, size_t size, const char *word)
{
    size_t length = strlen(word);
    while (size >= length) {
        const char *start = memchr(text, word[0], size - length + 1);
        if (start == NULL || memcmp(start, word, length) == 0) {
            return start;
        }
        size -= (size_t)(start + 1 - text);
        text = start + 1;
    }
    return NULL;
}

/* The recipe's bytes between the element's tags, or NULL. */
static const char *find_recipe(size_t *size, const char *packet, size_t packet_size)
{
    const char *start = find(packet, packet_size, TAG_OPEN);
    if (start == NULL) {
        return NULL;
    }
    start += strlen(TAG_OPEN);
    const char *end = find(start, packet_size - (size_t)(start - packet), TAG_CLOSE);
    if (end == NULL) {
        return NULL;
    }
    *size = (size_t)(end - start);
    return start;
}

static void unescape(dk_string *out, const char *text, size_t size)
{
    const char *end = text + size;
    while (text < end) {
        const entity *found = NULL;
        for (int i = 0; i < ENTITY_COUNT && *text == '&' && found == NULL; i++) {
            size_t length = strlen(entities[i].name);
            bool same =
                length <= (size_t)(end - text) && memcmp(text, entities[i].name, length) == 0;
            found = same ? &entities[i] : NULL;
        }
        dk_string_putc(out, found != NULL ? found->character : *text);
        text += found != NULL ? strlen(found->name) : 1;
    }
}

dk_status dk_xmp_recipe(dk_string *out, const uint8_t *packet, size_t packet_size,
                        const char *where, dk_error *err)
{
    enum { LONGEST_ENTITY = 6 };
    size_t size;
    const char *text = find_recipe(&size, (const char *)packet, packet_size);
    dk_string plain = DK_STRING_EMPTY;
    if (text == NULL) {
        return DK_OK;
    }
    if (size <= (size_t)DK_MEDIA_RECIPE_BYTES * LONGEST_ENTITY) {
        unescape(&plain, text, size);
        size = plain.length;
    } /* else it is too long in any case */
    dk_status status =
        dk_recipe_append(out, (const uint8_t *)dk_string_text(&plain), size, where, err);
    dk_string_release(&plain);
    return status;
}
