/* What a module of devices finds on this machine, for `darkroom selftest`. */
#ifndef DK_CLI_DEVICES_H
#define DK_CLI_DEVICES_H

#include <jansson.h>

#include "base/error.h"

/* Loads the module for devices of that kind ("xpu") and asks it: its libraries, its devices,
   and the variables that narrow what it finds. *out: owned. *module stays loaded until
   dk_device_module_unload. Failures as of dk_device_module_load. */
DK_MUST_USE dk_status dk_device_report(json_t **out, void **module, const char *kind,
                                       dk_error *err);

/* The report as text, on standard output. */
void dk_device_report_print(const json_t *report);

#endif
