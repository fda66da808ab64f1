/* A bump allocator: many small objects with one life, freed whole. */
#ifndef DK_BASE_ARENA_H
#define DK_BASE_ARENA_H

#include <stddef.h>

typedef struct dk_arena {
    struct dk_arena_block *head; /* newest block first */
} dk_arena;

void dk_arena_init(dk_arena *arena);
void dk_arena_release(dk_arena *arena);

/* Zeroed memory, aligned to 16 bytes, borrowed until the arena is released. */
void *dk_arena_alloc(dk_arena *arena, size_t bytes);
char *dk_arena_strndup(dk_arena *arena, const char *text, size_t bytes);
char *dk_arena_printf(dk_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
