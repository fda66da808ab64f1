/* A Level Zero loader for a machine without a GPU: two cards of one name and one of another,
   the processor's own graphics behind them without system management. Only what
   device/xpu/identity.c calls. */
#include <stdio.h>
#include <string.h>

#include "device/xpu/drivers.h"

enum { CARDS = 4, MEMORIES = 2 };

typedef struct card {
    const char *name;
    uint8_t id;
    uint64_t free_bytes[MEMORIES];
} card;

static card cards[CARDS] = {{"Card B", 1, {1000, 24}},
                            {"Card A", 2, {7, 0}},
                            {"Card B", 3, {5, 6}},
                            {"Graphics", 4, {0, 0}}};

dk_ze_init zeInit, zesInit;
dk_ze_get_drivers zeDriverGet, zesDriverGet;
dk_ze_get_devices zeDeviceGet, zesDeviceGet;
dk_ze_get_properties zeDeviceGetProperties;
dk_zes_get_properties zesDeviceGetProperties;
dk_zes_get_memories zesDeviceEnumMemoryModules;
dk_zes_get_memory zesMemoryGetState;

uint32_t zeInit(uint32_t flags)
{
    return flags;
}

uint32_t zesInit(uint32_t flags)
{
    return flags;
}

static uint32_t give(uint32_t *count, void **out, void *const *all, uint32_t there)
{
    if (*count == 0) {
        *count = there;
        return 0;
    }
    *count = *count < there ? *count : there;
    memcpy(out, all, *count * sizeof *out);
    return 0;
}

uint32_t zeDriverGet(uint32_t *count, void **drivers)
{
    return give(count, drivers, (void *[]){cards}, 1);
}

uint32_t zesDriverGet(uint32_t *count, void **drivers)
{
    return zeDriverGet(count, drivers);
}

uint32_t zeDeviceGet(void *driver, uint32_t *count, void **devices)
{
    return driver != cards
               ? 1
               : give(count, devices, (void *[]){&cards[0], &cards[1], &cards[2], &cards[3]},
                      CARDS);
}

/* In another order, and one fewer. */
uint32_t zesDeviceGet(void *driver, uint32_t *count, void **devices)
{
    return driver != cards
               ? 1
               : give(count, devices, (void *[]){&cards[2], &cards[0], &cards[1]}, 3);
}

uint32_t zeDeviceGetProperties(void *device, dk_ze_properties *out)
{
    const card *c = device;
    if (out->struct_type != DK_ZE_PROPERTIES || out->next != NULL) {
        return 1;
    }
    out->type = DK_ZE_TYPE_GPU;
    memset(out->uuid, c->id, sizeof out->uuid);
    snprintf(out->name, sizeof out->name, "%s", c->name);
    return 0;
}

uint32_t zesDeviceGetProperties(void *device, dk_zes_properties *out)
{
    return out->struct_type != DK_ZES_PROPERTIES || out->next != NULL
               ? 1
               : zeDeviceGetProperties(device, &out->core);
}

uint32_t zesDeviceEnumMemoryModules(void *device, uint32_t *count, void **memories)
{
    card *c = device;
    return give(count, memories, (void *[]){&c->free_bytes[0], &c->free_bytes[1]}, MEMORIES);
}

uint32_t zesMemoryGetState(void *memory, dk_zes_memory *out)
{
    if (out->struct_type != DK_ZES_MEMORY || out->next != NULL) {
        return 1;
    }
    out->free_bytes = *(const uint64_t *)memory;
    return 0;
}
