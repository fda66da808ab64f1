/* What this machine and this build offer, for `darkroom selftest`. */
#ifndef DK_CLI_MACHINE_H
#define DK_CLI_MACHINE_H

#include <jansson.h>

/* Processor, cores, caches, memory, and the instruction sets found. Owned. */
json_t *dk_machine_report(void);

/* The kernels that cpu_flags choose, by family. Owned. */
json_t *dk_kernel_report(unsigned cpu_flags);

/* Encoders and libraries found at run time: name -> found. Owned. */
json_t *dk_module_report(void);

/* The most memory that this program has held; getrusage would count its parent's before exec.
 */
double dk_peak_memory_mb(void);

#endif
