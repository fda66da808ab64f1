/* Metrics in memory and as text. */
#include "server/service/metrics.h"

#include <pthread.h>
#include <string.h>

#include "base/alloc.h"

typedef enum metric_type { COUNTER, GAUGE, HISTOGRAM } metric_type;

static const struct metric {
    const char *name;
    metric_type type;
    const char *help;
} known[] = {
#define METRIC(name, type, help) {#name, type, help},
#include "server/service/metrics.def"
#undef METRIC
};
enum { KNOWN = sizeof known / sizeof *known };

/* Upper bounds in seconds: from a reply out of memory to a long film. */
static const double bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                1,     2.5,    5,     10,   30,    60,   300, 1800};
enum { BOUNDS = sizeof bounds / sizeof *bounds };

typedef struct series {
    char *labels;
    double value; /* of a histogram: the sum */
    double counts[BOUNDS + 1];
    struct series *next;
} series;

struct dk_metrics {
    pthread_mutex_t lock;
    series *first[KNOWN];
};

dk_metrics *dk_metrics_create(void)
{
    dk_metrics *metrics = dk_alloc(sizeof *metrics);
    pthread_mutex_init(&metrics->lock, NULL);
    return metrics;
}

void dk_metrics_destroy(dk_metrics **metrics)
{
    if (*metrics == NULL) {
        return;
    }
    for (int i = 0; i < KNOWN; i++) {
        while ((*metrics)->first[i] != NULL) {
            series *s = (*metrics)->first[i];
            (*metrics)->first[i] = s->next;
            dk_free(s->labels);
            dk_free(s);
        }
    }
    pthread_mutex_destroy(&(*metrics)->lock);
    dk_free(*metrics);
    *metrics = NULL;
}

/* With the lock held; NULL when the name is not in metrics.def. */
static series *find(dk_metrics *metrics, const char *name, const char *labels)
{
    int i = 0;
    while (i < KNOWN && strcmp(known[i].name, name) != 0) {
        i++;
    }
    if (i == KNOWN) {
        return NULL;
    }
    series **at = &metrics->first[i];
    while (*at != NULL && strcmp((*at)->labels, labels) != 0) {
        at = &(*at)->next;
    }
    if (*at == NULL) {
        *at = dk_alloc(sizeof **at);
        (*at)->labels = dk_strdup(labels);
    }
    return *at;
}

void dk_metrics_add(dk_metrics *metrics, const char *name, const char *labels, double value)
{
    pthread_mutex_lock(&metrics->lock);
    series *s = find(metrics, name, labels);
    if (s != NULL) {
        s->value += value;
    }
    pthread_mutex_unlock(&metrics->lock);
}

void dk_metrics_set(dk_metrics *metrics, const char *name, const char *labels, double value)
{
    pthread_mutex_lock(&metrics->lock);
    series *s = find(metrics, name, labels);
    if (s != NULL) {
        s->value = value;
    }
    pthread_mutex_unlock(&metrics->lock);
}

void dk_metrics_observe(dk_metrics *metrics, const char *name, const char *labels, double value)
{
    pthread_mutex_lock(&metrics->lock);
    series *s = find(metrics, name, labels);
    if (s != NULL) {
        int i = 0;
        while (i < BOUNDS && value > bounds[i]) {
            i++;
        }
        s->counts[i]++;
        s->value += value;
    }
    pthread_mutex_unlock(&metrics->lock);
}

static void write_histogram(dk_string *out, const char *name, const series *s)
{
    const char *comma = s->labels[0] != '\0' ? "," : "";
    double total = 0;
    for (int i = 0; i <= BOUNDS; i++) {
        total += s->counts[i];
        dk_string_printf(out, "%s_bucket{%s%sle=\"", name, s->labels, comma);
        if (i < BOUNDS) {
            dk_string_printf(out, "%g\"} %.0f\n", bounds[i], total);
        } else {
            dk_string_printf(out, "+Inf\"} %.0f\n", total);
        }
    }
    const char *open = s->labels[0] != '\0' ? "{" : "", *close = open[0] != '\0' ? "}" : "";
    dk_string_printf(out, "%s_sum%s%s%s %.9g\n", name, open, s->labels, close, s->value);
    dk_string_printf(out, "%s_count%s%s%s %.0f\n", name, open, s->labels, close, total);
}

void dk_metrics_text(dk_metrics *metrics, dk_string *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    pthread_mutex_lock(&metrics->lock);
    for (int i = 0; i < KNOWN; i++) {
        if (metrics->first[i] == NULL) {
            continue;
        }
        dk_string_printf(out, "# HELP %s %s\n# TYPE %s %s\n", known[i].name, known[i].help,
                         known[i].name, types[known[i].type]);
        for (const series *s = metrics->first[i]; s != NULL; s = s->next) {
            if (known[i].type == HISTOGRAM) {
                write_histogram(out, known[i].name, s);
            } else if (s->labels[0] != '\0') {
                dk_string_printf(out, "%s{%s} %.15g\n", known[i].name, s->labels, s->value);
            } else {
                dk_string_printf(out, "%s %.15g\n", known[i].name, s->value);
            }
        }
    }
    pthread_mutex_unlock(&metrics->lock);
}
