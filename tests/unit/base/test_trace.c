/* Traces: what the file holds, while it grows, when several threads write, when it is full. */
#include "base/trace.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "scratch.h"
#include "test.h"

static char log_text[4096];

static void note_line(void *context, dk_log_level level, const char *line)
{
    (void)context;
    (void)level;
    snprintf(log_text, sizeof log_text, "%s", line);
}

static const dk_log noting = {.write = note_line, .level = DK_LOG_WARNING};

static dk_trace *opened(const char *path, uint64_t most_bytes)
{
    dk_error err;
    dk_trace *trace = NULL;
    const dk_trace_options options = {.path = path,
                                      .process = "a \"test\"",
                                      .rank = 3,
                                      .most_bytes = most_bytes,
                                      .log = &noting};
    log_text[0] = '\0';
    assert_ok(dk_trace_open(&trace, &options, &err), err);
    return trace;
}

/* The file as an array of events; closes the bracket that a file in use lacks. */
static json_t *read_events(const char *path, bool closed)
{
    char *text = NULL;
    size_t size = 0;
    dk_error err;
    json_t *events = NULL;
    assert_ok(dk_file_read(&text, &size, path, 16 << 20, &err), err);
    assert_int_equal(size > 2 && strcmp(text + size - 3, "\n]\n") == 0, closed);
    char *whole = dk_alloc(size + 3);
    memcpy(whole, text, size);
    memcpy(whole + size, "\n]", closed ? 0 : 2);
    assert_ok(dk_json_parse(&events, whole, size + (closed ? 0 : 2), path, &err), err);
    dk_free(whole);
    dk_free(text);
    return events;
}

static int count_spans(const json_t *events)
{
    int count = 0;
    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *e = json_array_get(events, i);
        count += strcmp(json_string_value(json_object_get(e, "ph")), "X") == 0;
    }
    return count;
}

static const json_t *span_named(const json_t *events, const char *name)
{
    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *e = json_array_get(events, i);
        if (strcmp(json_string_value(json_object_get(e, "ph")), "X") == 0 &&
            strcmp(json_string_value(json_object_get(e, "name")), name) == 0) {
            return e;
        }
    }
    fail_msg("no span '%s'", name);
    return NULL;
}

static void writes_what_it_is_told(void **state)
{
    char *path = dk_path_join(*state, "trace.json");
    dk_trace *trace = opened(path, 0);
    dk_trace_add(trace, &(dk_trace_span){.lane = DK_TRACE_COMPUTE,
                                         .name = "a \"quoted\\ name\n",
                                         .begin_ns = 1234567,
                                         .end_ns = 1235068,
                                         .bytes = 12,
                                         .flops = 5e9,
                                         .group = "sp"});
    dk_trace_add(trace, &(dk_trace_span){.lane = "another", .name = "empty", .begin_ns = 7});
    dk_trace_add(NULL, &(dk_trace_span){.lane = "none", .name = "nothing"});
    dk_trace_close(&trace);
    assert_null(trace);
    json_t *events = read_events(path, true);
    assert_int_equal(count_spans(events), 2);
    const json_t *span = span_named(events, "a \"quoted\\ name?");
    const json_t *args = json_object_get(span, "args");
    assert_true(json_number_value(json_object_get(span, "ts")) == 1234.567);
    assert_true(json_number_value(json_object_get(span, "dur")) == 0.501);
    assert_int_equal(json_integer_value(json_object_get(span, "pid")), 3);
    assert_string_equal(json_string_value(json_object_get(span, "cat")), "compute");
    assert_int_equal(json_integer_value(json_object_get(args, "bytes")), 12);
    assert_string_equal(json_string_value(json_object_get(args, "group")), "sp");
    assert_true(json_number_value(json_object_get(args, "flops")) == 5e9);
    assert_null(json_object_get(args, "rows"));
    assert_true(json_number_value(json_object_get(span_named(events, "empty"), "dur")) == 0);
    json_decref(events);
    dk_free(path);
}

static void is_readable_before_its_end(void **state)
{
    char *path = dk_path_join(*state, "trace.json");
    dk_trace *trace = opened(path, 0);
    json_t *events = read_events(path, false); /* names of the process and of lanes */
    assert_true(json_array_size(events) > 2);
    json_decref(events);
    for (int i = 0; i < 2000; i++) {
        dk_trace_add(trace, &(dk_trace_span){.lane = DK_TRACE_STAGES, .name = "stage"});
    }
    events = read_events(path, false);
    int before = count_spans(events);
    assert_true(before > 0 && before < 2000);
    json_decref(events);
    dk_trace_close(&trace);
    events = read_events(path, true);
    assert_int_equal(count_spans(events), 2000);
    json_decref(events);
    dk_free(path);
}

enum { THREADS = 4, SPANS = 3000 };

static void *add_many(void *trace)
{
    for (int i = 0; i < SPANS; i++) {
        int64_t now = dk_now_ns();
        dk_trace_add(trace, &(dk_trace_span){.lane = DK_TRACE_TRANSFER,
                                             .name = "copy",
                                             .begin_ns = now,
                                             .end_ns = now + 1,
                                             .bytes = i});
    }
    return NULL;
}

static void takes_spans_of_all_threads(void **state)
{
    char *path = dk_path_join(*state, "trace.json");
    dk_trace *trace = opened(path, 0);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, trace), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    dk_trace_close(&trace);
    json_t *events = read_events(path, true);
    assert_int_equal(count_spans(events), THREADS * SPANS);
    json_decref(events);
    dk_free(path);
}

static void stops_at_its_size(void **state)
{
    char *path = dk_path_join(*state, "trace.json");
    dk_trace *trace = opened(path, 100000);
    add_many(trace);
    dk_trace_close(&trace);
    assert_true(dk_file_stamp_of(path).bytes <= 100003);
    assert_non_null(strstr(log_text, "spans were left out"));
    json_t *events = read_events(path, true);
    assert_true(count_spans(events) > 500);
    json_decref(events);
    dk_free(path);
}

static void names_that_are_too_long_are_cut(void **state)
{
    char *path = dk_path_join(*state, "trace.json");
    dk_trace *trace = opened(path, 0);
    char name[5000];
    memset(name, '"', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    dk_trace_add(
        trace,
        &(dk_trace_span){
            .lane = name, .name = name, .group = name, .operation = name, .detail = name});
    for (int i = 0; i < 100; i++) { /* more lanes than there is room for */
        char lane[32];
        snprintf(lane, sizeof lane, "lane %d", i);
        dk_trace_add(trace, &(dk_trace_span){.lane = lane, .name = "x"});
    }
    dk_trace_close(&trace);
    json_t *events = read_events(path, true);
    assert_int_equal(count_spans(events), 101);
    json_decref(events);
    dk_free(path);
}

static void refuses(const char *path, const char *why)
{
    dk_error err = {0};
    dk_trace *trace = NULL;
    const dk_trace_options options = {.path = path, .process = "p"};
    assert_int_not_equal(dk_trace_open(&trace, &options, &err), DK_OK);
    assert_null(trace);
    assert_non_null(strstr(err.message, why));
    assert_non_null(strstr(err.message, "accepted is the path of a file"));
}

static void refuses_what_is_no_file(void **state)
{
    char *folder = dk_path_join(*state, "folder"), *slash = dk_path_join(*state, "no/");
    char *missing = dk_path_join(*state, "missing/trace.json");
    assert_int_equal(mkdir(folder, 0777), 0);
    refuses("-", "names no file");
    refuses("", "names no file");
    refuses(folder, "is a folder");
    refuses(slash, "is a folder");
    refuses("/dev/null", "no ordinary file");
    refuses(missing, "No such file or directory");
    dk_free(folder);
    dk_free(slash);
    dk_free(missing);
}

static void names_a_file_per_rank(void **state)
{
    (void)state;
    static const char *const names[][2] = {{"trace.json", "trace-2.json"},
                                           {"a.b/trace", "a.b/trace-2"},
                                           {"/x/t.json.txt", "/x/t.json-2.txt"},
                                           {"d/.hidden", "d/.hidden-2"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *made = dk_trace_path_of_rank(names[i][0], 2);
        assert_string_equal(made, names[i][1]);
        dk_free(made);
    }
}

static int make_folder(void **state)
{
    *state = scratch_create();
    return 0;
}

static int remove_folder(void **state)
{
    scratch_remove(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writes_what_it_is_told, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(is_readable_before_its_end, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(takes_spans_of_all_threads, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(stops_at_its_size, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(names_that_are_too_long_are_cut, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(refuses_what_is_no_file, make_folder, remove_folder),
        cmocka_unit_test(names_a_file_per_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
