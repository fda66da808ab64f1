/* Link speeds from a report of comm-test. */
#include <math.h>
#include <string.h>

#include "scaling/machine.h"

enum { MOST_DEPTH = 16 };

/* What is known of one kind of call. */
typedef struct sample {
    const char *call;
    double fastest;   /* seconds of the shortest one */
    double bandwidth; /* best bytes per second beyond that */
} sample;

static double seconds_of(const json_t *entry)
{
    static const struct {
        const char *key;
        double unit;
    } units[] = {{"latency_us", 1e-6}, {"seconds", 1}, {"ms", 1e-3}, {"us", 1e-6}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        const json_t *value = json_object_get(entry, units[i].key);
        if (json_is_number(value)) {
            return json_number_value(value) * units[i].unit;
        }
    }
    return 0;
}

/* That a rank sends: by the bus bandwidth, where it is told, since "bytes" is then the size of
   what all ranks together have. */
static double sent_of(const json_t *entry)
{
    const json_t *bus = json_object_get(entry, "bus_gbs");
    return json_is_number(bus) ? json_number_value(bus) * 1e9 * seconds_of(entry)
                               : json_number_value(json_object_get(entry, "bytes"));
}

static bool is_of(const json_t *entry, const char *call)
{
    const char *name = json_string_value(json_object_get(entry, "call"));
    if (name == NULL) {
        name = json_string_value(json_object_get(entry, "op"));
    }
    return name != NULL && strcmp(name, call) == 0 &&
           json_is_number(json_object_get(entry, "bytes")) && seconds_of(entry) > 0 &&
           !json_is_false(json_object_get(entry, "correct"));
}

/* Two walks: the shortest time first, then the bandwidth beside it. */
static void walk(sample *s, const json_t *value, bool second, int depth)
{
    const char *key;
    size_t i;
    json_t *child;
    if (depth > MOST_DEPTH) {
        return;
    }
    if (json_is_object(value) && is_of(value, s->call)) {
        double seconds = seconds_of(value);
        if (!second) {
            s->fastest = fmin(s->fastest, seconds);
        } else if (seconds > 2 * s->fastest) {
            s->bandwidth = fmax(s->bandwidth, sent_of(value) / (seconds - s->fastest));
        }
    }
    json_object_foreach((json_t *)value, key, child)
    {
        walk(s, child, second, depth + 1);
    }
    json_array_foreach((json_t *)value, i, child)
    {
        walk(s, child, second, depth + 1);
    }
}

dk_status dk_machine_measured(dk_machine *machine, const json_t *report, const char *where,
                              dk_error *err)
{
    static const char *const calls[] = {"all_to_all", "shift", "all_gather"};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        sample s = {.call = calls[i], .fastest = INFINITY};
        walk(&s, report, false, 0);
        walk(&s, report, true, 0);
        if (isfinite(s.fastest) && s.bandwidth > 0) {
            machine->link_gbps = s.bandwidth * 1e-9;
            machine->call_us = s.fastest * 1e6;
            return DK_OK;
        }
    }
    return dk_fail(err, DK_FORMAT,
                   "%s: no all_to_all, shift or all_gather with \"bytes\" and a time of "
                   "several sizes, expected the report of darkroom comm-test --json",
                   where);
}
