/* What the processor offers, as a set of flags that only grows from level to level; but
   DK_CPU_AVX_VNNI belongs to its own level alone, since many CPUs with AVX-512 lack it and
   those that have both need it no more. A family's init takes the flags as an argument, so that
   tests and `--cpu` can cap a whole run. */
#ifndef DK_KERNELS_CPU_FLAGS_H
#define DK_KERNELS_CPU_FLAGS_H

#include <stdbool.h>

enum {
    DK_CPU_AVX2 = 1,   /* AVX2, FMA, F16C */
    DK_CPU_AVX512 = 2, /* F, BW, DQ, VL */
    DK_CPU_AVX512_VNNI = 4,
    DK_CPU_AVX512_BF16 = 8,
    DK_CPU_AMX = 16,      /* AMX-TILE, AMX-BF16, AMX-INT8 */
    DK_CPU_AVX_VNNI = 32, /* vpdpbusd of 256 bits */
};

typedef struct dk_cpu_level {
    const char *name; /* as `--cpu` takes it */
    unsigned flags;   /* everything up to and including the level */
} dk_cpu_level;

/* c, avx2, avxvnni, avx512, avx512bf16, amx */
enum { DK_CPU_LEVELS = 6 };
extern const dk_cpu_level dk_cpu_levels[DK_CPU_LEVELS];

unsigned dk_cpu_flags_detect(void); /* asks CPUID and the operating system */
bool dk_cpu_flags_cap(unsigned *flags, const char *level); /* false: unknown level name */
const char *dk_cpu_flags_name(unsigned flags);             /* the highest level inside flags */

#endif
