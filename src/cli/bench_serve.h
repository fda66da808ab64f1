/* Inside of `darkroom bench serve`: its flags and its report. */
#ifndef DK_CLI_BENCH_SERVE_H
#define DK_CLI_BENCH_SERVE_H

#include <jansson.h>

#include "base/parameter.h"
#include "cli/arguments.h"
#include "cli/bench_load.h"

extern const dk_parameter_table dk_bench_serve_parameters;

/* Loads a server that runs and reports. json: as one object. */
DK_MUST_USE dk_status dk_bench_serve(const dk_arguments *arguments, bool json, dk_error *err);

/* What was measured, as an object; owned. slo_s: per size, [options->size_count]; 0: none. */
json_t *dk_bench_serve_report(const dk_load *load, const dk_load_options *options,
                              const double *slo_s);

/* One object per request, in the order of arrival; owned. */
json_t *dk_bench_serve_requests(const dk_load *load, const dk_load_options *options);

/* Prints the report for people. */
void dk_bench_serve_print(const json_t *report);

/* The value below which `share` of the values lie (nearest rank); sorts them. NAN: none. */
double dk_bench_quantile(double *values, int count, double share);

#endif
