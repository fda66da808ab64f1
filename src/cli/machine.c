/* Facts about the machine: Linux's /proc, sysconf, and the kernel tables. */
#include "cli/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/load_module.h"
#include "base/string.h"
#include "base/team.h"
#include "comm/module.h"
#include "kernels/attention.h"
#include "kernels/cpu_flags.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/norm.h"
#include "media/media.h"

/* The value of "key : value" in a file of such lines, or "" when it is not there. */
static void read_line(char value[160], const char *path, const char *key)
{
    char line[512];
    FILE *file = fopen(path, "r");
    value[0] = '\0';
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) == 0 && colon != NULL) {
            colon += 1 + strspn(colon + 1, " \t");
            snprintf(value, 160, "%.*s", (int)strcspn(colon, "\n"), colon);
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
}

static json_t *memory_mb(const char *key)
{
    char value[160];
    read_line(value, "/proc/meminfo", key);
    return value[0] != '\0' ? json_integer(atoll(value) / 1024) : json_null();
}

static json_t *cache_kb(int name)
{
    long bytes = sysconf(name);
    return bytes > 0 ? json_integer(bytes / 1024) : json_null();
}

static json_t *flag_names(unsigned flags)
{
    static const struct {
        unsigned flag;
        const char *name;
    } known[] = {{DK_CPU_AVX2, "avx2"},
                 {DK_CPU_AVX512, "avx512"},
                 {DK_CPU_AVX512_VNNI, "avx512_vnni"},
                 {DK_CPU_AVX512_BF16, "avx512_bf16"},
                 {DK_CPU_AMX, "amx"}};
    json_t *names = json_array();
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if ((flags & known[i].flag) != 0) {
            json_array_append_new(names, json_string(known[i].name));
        }
    }
    return names;
}

json_t *dk_machine_report(void)
{
    char name[160];
    json_t *machine = json_object();
    read_line(name, "/proc/cpuinfo", "model name");
    json_object_set_new(machine, "cpu", json_string(name[0] != '\0' ? name : "unknown"));
    json_object_set_new(machine, "instruction_sets", flag_names(dk_cpu_flags_detect()));
    json_object_set_new(machine, "cores_online", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
    json_object_set_new(machine, "cores_available", json_integer(dk_available_cores()));
    json_object_set_new(machine, "cache_l1d_kb", cache_kb(_SC_LEVEL1_DCACHE_SIZE));
    json_object_set_new(machine, "cache_l2_kb", cache_kb(_SC_LEVEL2_CACHE_SIZE));
    json_object_set_new(machine, "cache_l3_kb", cache_kb(_SC_LEVEL3_CACHE_SIZE));
    json_object_set_new(machine, "memory_mb", memory_mb("MemTotal"));
    json_object_set_new(machine, "memory_available_mb", memory_mb("MemAvailable"));
    return machine;
}

/* A family without names of its own: the lowest level that gives the same functions. */
static const char *level_of_norm(unsigned flags)
{
    dk_norm_kernels chosen, other;
    dk_norm_kernels_init(&chosen, flags);
    for (int i = 0; i < DK_CPU_LEVELS; i++) {
        dk_norm_kernels_init(&other, dk_cpu_levels[i].flags & flags);
        if (chosen.norm == other.norm && chosen.norm_rope == other.norm_rope) {
            return dk_cpu_levels[i].name;
        }
    }
    return "?";
}

static const char *level_of_elementwise(unsigned flags)
{
    dk_elementwise_kernels chosen, other;
    dk_elementwise_kernels_init(&chosen, flags);
    for (int i = 0; i < DK_CPU_LEVELS; i++) {
        dk_elementwise_kernels_init(&other, dk_cpu_levels[i].flags & flags);
        if (chosen.map == other.map && chosen.combine == other.combine) {
            return dk_cpu_levels[i].name;
        }
    }
    return "?";
}

json_t *dk_kernel_report(unsigned cpu_flags)
{
    dk_linear_kernels linear;
    dk_attention_kernels attention;
    json_t *kernels = json_object();
    dk_linear_kernels_init(&linear, cpu_flags);
    dk_attention_kernels_init(&attention, cpu_flags);
    json_object_set_new(kernels, "linear, convolution (bf16)",
                        json_string(linear.gemm.bf16.name));
    json_object_set_new(kernels, "linear, convolution (f32)",
                        json_string(linear.gemm.f32.name));
    json_object_set_new(kernels, "attention (bf16)", json_string(attention.gemm.bf16.name));
    json_object_set_new(kernels, "attention (f32)", json_string(attention.gemm.f32.name));
    json_object_set_new(kernels, "norm", json_string(level_of_norm(cpu_flags)));
    json_object_set_new(kernels, "elementwise", json_string(level_of_elementwise(cpu_flags)));
    return kernels;
}

/* With the libraries that it was built for, or why it cannot be used. */
static void add_transport(json_t *modules, const char *kind, const char *use)
{
    void *handle;
    const dk_transport_module *module;
    dk_error why = {0};
    dk_string name = DK_STRING_EMPTY, text = DK_STRING_EMPTY;
    bool found = dk_transport_module_load(&handle, &module, kind, &why) == DK_OK;
    dk_string_printf(&name, "libdarkroom-%s", kind);
    dk_string_printf(&text, "%s: %s", use, found ? module->libraries : why.message);
    json_array_append_new(modules, json_pack("{s:s, s:s, s:b}", "name", name.data, "use",
                                             text.data, "found", found));
    if (found) {
        dk_module_unload(handle);
    }
    dk_string_release(&name);
    dk_string_release(&text);
}

json_t *dk_module_report(void)
{
    static const struct {
        const char *name, *use;
    } encoders[] = {{"libx264", "mp4: H.264"},
                    {"libopenh264", "mp4: H.264"},
                    {"libvpx-vp9", "webm: VP9"},
                    {"libaom-av1", "webm: AV1"},
                    {"libsvtav1", "webm: AV1"}};
    json_t *modules = json_array();
    for (size_t i = 0; i < sizeof encoders / sizeof *encoders; i++) {
        bool found = dk_media_has_encoder(encoders[i].name);
        json_array_append_new(modules, json_pack("{s:s, s:s, s:b}", "name", encoders[i].name,
                                                 "use", encoders[i].use, "found", found));
    }
    add_transport(modules, "mpi", "ranks of several hosts");
    add_transport(modules, "xccl", "ranks over oneCCL");
    return modules;
}

double dk_peak_memory_mb(void)
{
    static const char key[] = "VmHWM:";
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    double kilobytes = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, sizeof key - 1) == 0) {
            kilobytes = strtod(line + sizeof key - 1, NULL);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return kilobytes / 1024.0;
}
