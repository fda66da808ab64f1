/* A growing byte string, always NUL-terminated. */
#ifndef DK_BASE_STRING_H
#define DK_BASE_STRING_H

#include <stdbool.h>
#include <stddef.h>

typedef struct dk_string {
    char *data; /* owned; NULL while empty and never grown */
    size_t length, capacity;
} dk_string;

#define DK_STRING_EMPTY ((dk_string){0})

void dk_string_release(dk_string *string);
void dk_string_clear(dk_string *string); /* keeps the memory */
void dk_string_append(dk_string *string, const char *bytes, size_t length);
void dk_string_puts(dk_string *string, const char *text);
void dk_string_putc(dk_string *string, char c);
void dk_string_printf(dk_string *string, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
const char *dk_string_text(const dk_string *string); /* "" when empty; borrowed until changed */
char *dk_string_take(dk_string *string); /* owned by the caller; string is emptied */

bool dk_starts_with(const char *text, const char *prefix);
bool dk_ends_with(const char *text, const char *suffix);

#endif
