/* The devices of a module, as JSON and as text. */
#include "cli/devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/module.h"

enum { MOST_DEVICES = 64 };
static const double MIB = 1024.0 * 1024.0;

/* What SYCL, Level Zero, OpenCL and this program look at. */
static json_t *environment(void)
{
    static const char *const names[] = {"ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR",
                                        "OCL_ICD_FILENAMES", "DARKROOM_MODULE_PATH"};
    json_t *report = json_object();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        json_object_set_new(report, names[i], value != NULL ? json_string(value) : json_null());
    }
    return report;
}

static json_t *text_or_null(const char *text)
{
    return text[0] != '\0' ? json_string(text) : json_null();
}

static json_t *bytes_or_null(uint64_t bytes)
{
    return bytes > 0 ? json_integer((json_int_t)bytes) : json_null();
}

static json_t *sizes(const char *text)
{
    json_t *list = json_array();
    char *end = NULL;
    for (long size = strtol(text, &end, 10); end != text; size = strtol(text, &end, 10)) {
        json_array_append_new(list, json_integer(size));
        text = end;
    }
    return list;
}

static json_t *describe(const dk_device_info *info)
{
    return json_pack(
        "{s:s, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:i, s:o, s:o, s:b, s:b}", "device",
        info->asked, "name", text_or_null(info->name), "kind", info->kind, "backend",
        info->backend, "driver", text_or_null(info->driver), "uuid", text_or_null(info->uuid),
        "memory_bytes", bytes_or_null(info->memory_bytes), "free_bytes",
        bytes_or_null(info->free_bytes), "local_bytes", bytes_or_null(info->local_bytes),
        "compute_units", info->compute_units, "clock_mhz",
        info->clock_mhz > 0 ? json_integer(info->clock_mhz) : json_null(), "sub_group_sizes",
        sizes(info->sub_groups), "f16", info->f16, "f64", info->f64);
}

dk_status dk_device_report(json_t **out, void **module, const char *kind, dk_error *err)
{
    dk_device_info found[MOST_DEVICES];
    const dk_device_module *interface;
    json_t *narrowed = environment(); /* before the module adds its own */
    dk_status status = dk_device_module_load(module, &interface, kind, err);
    if (status != DK_OK) {
        json_decref(narrowed);
        return status;
    }
    int count = interface->list(found, MOST_DEVICES);
    json_t *devices = json_array();
    for (int i = 0; i < count && i < MOST_DEVICES; i++) {
        json_array_append_new(devices, describe(&found[i]));
    }
    *out = json_pack("{s:s, s:s, s:o, s:o}", "kind", kind, "libraries", interface->libraries,
                     "environment", narrowed, "devices", devices);
    return DK_OK;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "not told";
}

static void print_memory(const json_t *device)
{
    const json_t *left = json_object_get(device, "free_bytes");
    printf("    %-26s %.0f MiB", "memory",
           json_number_value(json_object_get(device, "memory_bytes")) / MIB);
    if (json_is_null(left)) {
        printf(", free: not told\n");
    } else {
        printf(", %.0f MiB free\n", json_number_value(left) / MIB);
    }
}

static void print_device(const json_t *device)
{
    size_t i;
    json_t *size;
    int clock_mhz = (int)json_integer_value(json_object_get(device, "clock_mhz"));
    printf("  %-28s %s\n", text_of(device, "device"), text_of(device, "name"));
    printf("    %-26s %s, %s, driver %s\n", "kind", text_of(device, "kind"),
           text_of(device, "backend"), text_of(device, "driver"));
    printf("    %-26s %s\n", "uuid", text_of(device, "uuid"));
    print_memory(device);
    printf("    %-26s %d", "compute units",
           (int)json_integer_value(json_object_get(device, "compute_units")));
    if (clock_mhz > 0) {
        printf(", %d MHz", clock_mhz);
    }
    printf("\n");
    printf("    %-26s", "sub-group sizes");
    json_array_foreach(json_object_get(device, "sub_group_sizes"), i, size)
    {
        printf(" %d", (int)json_integer_value(size));
    }
    printf("\n    %-26s f16 %s, f64 %s\n", "arithmetic",
           json_is_true(json_object_get(device, "f16")) ? "yes" : "no",
           json_is_true(json_object_get(device, "f64")) ? "yes" : "no");
}

void dk_device_report_print(const json_t *report)
{
    size_t i;
    const char *name;
    json_t *entry;
    json_t *devices = json_object_get(report, "devices");
    printf("module for %s\n", text_of(report, "kind"));
    printf("  %-28s %s\n", "libraries", text_of(report, "libraries"));
    json_object_foreach(json_object_get(report, "environment"), name, entry)
    {
        printf("  %-28s %s\n", name,
               json_is_string(entry) ? json_string_value(entry) : "not set");
    }
    printf("devices that it finds%s\n", json_array_size(devices) == 0 ? ": none" : "");
    json_array_foreach(devices, i, entry)
    {
        print_device(entry);
    }
}
