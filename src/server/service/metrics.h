/* Numbers for Prometheus: counters, gauges and histograms by name and labels, in the text
   format 0.0.4. Any thread. */
#ifndef DK_SERVER_SERVICE_METRICS_H
#define DK_SERVER_SERVICE_METRICS_H

#include "base/string.h"

typedef struct dk_metrics dk_metrics;

dk_metrics *dk_metrics_create(void);
void dk_metrics_destroy(dk_metrics **metrics);

/* name: "darkroom_requests_total", of metrics.def; labels: "route=\"/health\",status=\"200\""
 * or "". */
void dk_metrics_add(dk_metrics *metrics, const char *name, const char *labels, double value);
void dk_metrics_set(dk_metrics *metrics, const char *name, const char *labels, double value);
/* Into a histogram. */
void dk_metrics_observe(dk_metrics *metrics, const char *name, const char *labels,
                        double value);
void dk_metrics_text(dk_metrics *metrics, dk_string *out);

#endif
