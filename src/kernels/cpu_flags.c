/* CPU detection: CPUID leaves 1 and 7, and XCR0 for what the operating system saves. */
#define _GNU_SOURCE
#include "kernels/cpu_flags.h"

#include <stddef.h>
#include <string.h>

enum {
    AVX2_LEVEL = DK_CPU_AVX2,
    AVX_VNNI_LEVEL = AVX2_LEVEL | DK_CPU_AVX_VNNI,
    AVX512_LEVEL = AVX2_LEVEL | DK_CPU_AVX512,
    BF16_LEVEL = AVX512_LEVEL | DK_CPU_AVX512_VNNI | DK_CPU_AVX512_BF16,
    AMX_LEVEL = BF16_LEVEL | DK_CPU_AMX,
};

const dk_cpu_level dk_cpu_levels[DK_CPU_LEVELS] = {
    {"c", 0},
    {"avx2", AVX2_LEVEL},
    {"avxvnni", AVX_VNNI_LEVEL},
    {"avx512", AVX512_LEVEL},
    {"avx512bf16", BF16_LEVEL},
    {"amx", AMX_LEVEL},
};

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux gives a process the tile registers only on request. */
static bool ask_for_tiles(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static unsigned long long xcr0(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((unsigned long long)high << 32) | low;
}

unsigned dk_cpu_flags_detect(void)
{
    enum { YMM = 0x6, ZMM = 0xe6, TILE = 0x60000 };
    unsigned a, b, c, d, flags = 0, leaf1_c;
    if (!__get_cpuid(1, &a, &b, &leaf1_c, &d) || (leaf1_c & bit_OSXSAVE) == 0) {
        return 0;
    }
    unsigned long long saved = xcr0();
    bool fma = (leaf1_c & bit_FMA) != 0 && (leaf1_c & bit_F16C) != 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        return 0;
    }
    unsigned leaf7_b = b, leaf7_c = c, leaf7_d = d, leaf71_a = 0;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        leaf71_a = a;
    }
    if (fma && (leaf7_b & bit_AVX2) != 0 && (saved & YMM) == YMM) {
        flags |= DK_CPU_AVX2;
        flags |= (leaf71_a & (1u << 4)) != 0 ? DK_CPU_AVX_VNNI : 0u;
    }
    unsigned wanted = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if (flags != 0 && (leaf7_b & wanted) == wanted && (saved & ZMM) == ZMM) {
        flags |= DK_CPU_AVX512;
        flags |= (leaf7_c & bit_AVX512VNNI) != 0 ? DK_CPU_AVX512_VNNI : 0u;
        flags |= (leaf71_a & (1u << 5)) != 0 ? DK_CPU_AVX512_BF16 : 0u;
    }
    unsigned amx = (1u << 22) | (1u << 24) | (1u << 25); /* AMX-BF16, AMX-TILE, AMX-INT8 */
    if ((flags & DK_CPU_AVX512_BF16) != 0 && (leaf7_d & amx) == amx && (saved & TILE) == TILE &&
        ask_for_tiles()) {
        flags |= DK_CPU_AMX;
    }
    return flags;
}
#else
unsigned dk_cpu_flags_detect(void)
{
    return 0;
}
#endif

bool dk_cpu_flags_cap(unsigned *flags, const char *level)
{
    for (int i = 0; i < DK_CPU_LEVELS; i++) {
        if (strcmp(dk_cpu_levels[i].name, level) == 0) {
            *flags &= dk_cpu_levels[i].flags;
            return true;
        }
    }
    return false;
}

const char *dk_cpu_flags_name(unsigned flags)
{
    const char *name = dk_cpu_levels[0].name;
    for (int i = 0; i < DK_CPU_LEVELS; i++) {
        if ((flags & dk_cpu_levels[i].flags) == dk_cpu_levels[i].flags) {
            name = dk_cpu_levels[i].name;
        }
    }
    return name;
}
