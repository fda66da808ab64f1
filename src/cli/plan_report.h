/* What darkroom plan found, as text and as JSON. */
#ifndef DK_CLI_PLAN_REPORT_H
#define DK_CLI_PLAN_REPORT_H

#include <jansson.h>

#include "scaling/search.h"

typedef struct dk_layout_report {
    const dk_geometry *geometry;
    const dk_machine *machine;
    const dk_cost_options *options;
    const dk_candidate *candidates; /* [count], best first */
    int count, most;                /* most: how many are shown */
    int ranks, hosts, steps;
} dk_layout_report;

/* Owned. */
json_t *dk_layout_report_json(const dk_layout_report *plan);
void dk_layout_report_print(const dk_layout_report *plan);

#endif
