/* Numbers for Prometheus. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "server/service/metrics.h"
#include "test.h"

static void assert_text(dk_metrics *metrics, const char *wanted)
{
    dk_string text = DK_STRING_EMPTY;
    dk_metrics_text(metrics, &text);
    assert_string_equal(dk_string_text(&text), wanted);
    dk_string_release(&text);
}

static void assert_line(dk_metrics *metrics, const char *line)
{
    dk_string text = DK_STRING_EMPTY;
    dk_metrics_text(metrics, &text);
    if (strstr(dk_string_text(&text), line) == NULL) {
        fail_msg("'%s' is not in:\n%s", line, dk_string_text(&text));
    }
    dk_string_release(&text);
}

static void test_counters_and_gauges(void **state)
{
    (void)state;
    dk_metrics *metrics = dk_metrics_create();
    assert_text(metrics, "");
    dk_metrics_add(metrics, "darkroom_jobs_total", "kind=\"video\",status=\"completed\"", 1);
    dk_metrics_add(metrics, "darkroom_jobs_total", "kind=\"video\",status=\"completed\"", 2);
    dk_metrics_add(metrics, "darkroom_jobs_total", "kind=\"image\",status=\"failed\"", 1);
    dk_metrics_set(metrics, "darkroom_queue_depth", "", 7);
    dk_metrics_set(metrics, "darkroom_queue_depth", "", 3);
    assert_text(metrics, "# HELP darkroom_jobs_total Jobs that ended, by kind and status\n"
                         "# TYPE darkroom_jobs_total counter\n"
                         "darkroom_jobs_total{kind=\"video\",status=\"completed\"} 3\n"
                         "darkroom_jobs_total{kind=\"image\",status=\"failed\"} 1\n"
                         "# HELP darkroom_queue_depth Outputs that wait for a worker\n"
                         "# TYPE darkroom_queue_depth gauge\n"
                         "darkroom_queue_depth 3\n");
    dk_metrics_destroy(&metrics);
    assert_null(metrics);
    dk_metrics_destroy(&metrics);
}

static void test_large_numbers_keep_their_digits(void **state)
{
    (void)state;
    dk_metrics *metrics = dk_metrics_create();
    dk_metrics_set(metrics, "darkroom_store_bytes", "", 123456789012345.0);
    dk_metrics_add(metrics, "darkroom_retries_total", "", 4000000001.0);
    assert_line(metrics, "darkroom_store_bytes 123456789012345\n");
    assert_line(metrics, "darkroom_retries_total 4000000001\n");
    dk_metrics_destroy(&metrics);
}

static void test_unknown_names_are_ignored(void **state)
{
    (void)state;
    dk_metrics *metrics = dk_metrics_create();
    dk_metrics_add(metrics, "nothing", "", 1);
    dk_metrics_set(metrics, "nothing", "", 1);
    dk_metrics_observe(metrics, "nothing", "", 1);
    assert_text(metrics, "");
    dk_metrics_destroy(&metrics);
}

static void test_histograms_are_cumulative(void **state)
{
    (void)state;
    dk_metrics *metrics = dk_metrics_create();
    static const double values[] = {0.0005, 0.001, 0.0011, 0.3, 5000};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        dk_metrics_observe(metrics, "darkroom_stage_seconds", "stage=\"decoding\"", values[i]);
    }
    assert_line(metrics, "# TYPE darkroom_stage_seconds histogram\n");
    static const char *const lines[] = {
        "_bucket{stage=\"decoding\",le=\"0.001\"} 2\n", /* a bound belongs to its bucket */
        "_bucket{stage=\"decoding\",le=\"0.0025\"} 3\n",
        "_bucket{stage=\"decoding\",le=\"0.25\"} 3\n",
        "_bucket{stage=\"decoding\",le=\"0.5\"} 4\n",
        "_bucket{stage=\"decoding\",le=\"1800\"} 4\n",
        "_bucket{stage=\"decoding\",le=\"+Inf\"} 5\n",
        "_sum{stage=\"decoding\"} 5000.3026\n",
        "_count{stage=\"decoding\"} 5\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char line[128];
        snprintf(line, sizeof line, "darkroom_stage_seconds%s", lines[i]);
        assert_line(metrics, line);
    }
    dk_metrics_observe(metrics, "darkroom_step_seconds", "", 0.2);
    assert_line(metrics, "darkroom_step_seconds_bucket{le=\"0.25\"} 1\n");
    assert_line(metrics, "darkroom_step_seconds_sum 0.2\n");
    assert_line(metrics, "darkroom_step_seconds_count 1\n");
    dk_metrics_destroy(&metrics);
}

enum { THREADS = 4, ROUNDS = 20000 };

static void *count_up(void *metrics)
{
    for (int i = 0; i < ROUNDS; i++) {
        dk_metrics_add(metrics, "darkroom_retries_total", "", 1);
        dk_metrics_observe(metrics, "darkroom_step_seconds", "", 1);
    }
    return NULL;
}

static void test_threads_lose_nothing(void **state)
{
    (void)state;
    dk_metrics *metrics = dk_metrics_create();
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, metrics), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_line(metrics, "darkroom_retries_total 80000\n");
    assert_line(metrics, "darkroom_step_seconds_count 80000\n");
    dk_metrics_destroy(&metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counters_and_gauges),
        cmocka_unit_test(test_large_numbers_keep_their_digits),
        cmocka_unit_test(test_unknown_names_are_ignored),
        cmocka_unit_test(test_histograms_are_cumulative),
        cmocka_unit_test(test_threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
