/* The bump allocator: blocks of at least 64 KiB in a list. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

enum { BLOCK_BYTES = 64 * 1024, UNIT = 16 };

typedef struct dk_arena_block {
    struct dk_arena_block *next;
    size_t used, size;
    _Alignas(UNIT) unsigned char data[];
} dk_arena_block;

void dk_arena_init(dk_arena *arena)
{
    arena->head = NULL;
}

void dk_arena_release(dk_arena *arena)
{
    while (arena->head != NULL) {
        dk_arena_block *next = arena->head->next;
        dk_free(arena->head);
        arena->head = next;
    }
}

void *dk_arena_alloc(dk_arena *arena, size_t bytes)
{
    size_t need = (bytes + UNIT - 1) / UNIT * UNIT;
    dk_arena_block *block = arena->head;
    if (block == NULL || block->size - block->used < need) {
        size_t size = need > BLOCK_BYTES ? need : BLOCK_BYTES;
        block = dk_alloc(sizeof *block + size);
        block->size = size;
        block->next = arena->head;
        arena->head = block;
    }
    void *memory = block->data + block->used;
    block->used += need;
    return memory;
}

char *dk_arena_strndup(dk_arena *arena, const char *text, size_t bytes)
{
    char *copy = dk_arena_alloc(arena, bytes + 1);
    memcpy(copy, text, bytes);
    return copy;
}

char *dk_arena_printf(dk_arena *arena, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = dk_arena_alloc(arena, (size_t)(length > 0 ? length : 0) + 1);
    vsnprintf(text, (size_t)(length > 0 ? length : 0) + 1, format, again);
    va_end(again);
    return text;
}
