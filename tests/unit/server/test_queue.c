/* The queue: whose turn it is. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "server/scheduler/queue.h"
#include "test.h"

typedef struct details {
    const char *owner, *signature;
    int priority;
    double deadline_ms, queued_ms;
} details;

static void add(dk_queue *queue, const char *id, details d)
{
    dk_task *task = dk_alloc(sizeof *task);
    task->id = dk_strdup(id);
    task->owner = dk_strdup(d.owner != NULL ? d.owner : "");
    task->signature = d.signature != NULL ? dk_strdup(d.signature) : NULL;
    task->priority = d.priority;
    task->deadline_ms = d.deadline_ms;
    task->queued_ms = d.queued_ms;
    dk_queue_add(queue, task);
}

/* Takes up to `most` tasks at the time 1000 and compares their ids, "a b c". */
static void assert_taken(dk_queue *queue, int most, const char *wanted)
{
    dk_task *tasks[16];
    char ids[256] = "";
    double wait_ms = -1;
    int count = dk_queue_take(queue, tasks, most, 0, 1000, &wait_ms);
    for (int i = 0; i < count; i++) {
        size_t used = strlen(ids);
        assert_null(tasks[i]->next);
        snprintf(ids + used, sizeof ids - used, "%s%s", i > 0 ? " " : "", tasks[i]->id);
        dk_task_destroy(&tasks[i]);
        assert_null(tasks[i]);
    }
    assert_string_equal(ids, wanted);
    assert_true(wait_ms >= 0 && wait_ms <= 0);
}

static void assert_order(const dk_queue *queue, int most, const char *wanted)
{
    json_t *ids = dk_queue_order(queue, most);
    char text[256] = "";
    for (size_t i = 0; i < json_array_size(ids); i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%s", i > 0 ? " " : "",
                 json_string_value(json_array_get(ids, i)));
    }
    json_decref(ids);
    assert_string_equal(text, wanted);
}

static void test_oldest_first(void **state)
{
    (void)state;
    dk_queue *queue = dk_queue_create();
    assert_int_equal(dk_queue_depth(queue), 0);
    assert_null(dk_queue_first(queue));
    assert_taken(queue, 4, "");
    add(queue, "a", (details){0});
    add(queue, "b", (details){0});
    add(queue, "c", (details){0});
    assert_int_equal(dk_queue_depth(queue), 3);
    assert_string_equal(dk_queue_first(queue)->id, "a");
    assert_non_null(dk_queue_find(queue, "c"));
    assert_null(dk_queue_find(queue, "d"));
    assert_order(queue, 10, "a b c");
    assert_order(queue, 2, "a b");
    assert_order(queue, 0, "");
    assert_taken(queue, 1, "a");
    assert_taken(queue, 4, "b"); /* no signature: with nobody */
    assert_null(dk_queue_find(queue, "b"));
    dk_queue_destroy(&queue);
    assert_null(queue);
    dk_queue_destroy(&queue);
}

static void test_priority_goes_first(void **state)
{
    (void)state;
    dk_queue *queue = dk_queue_create();
    add(queue, "low", (details){.priority = -1});
    add(queue, "a", (details){0});
    add(queue, "high", (details){.priority = 5});
    add(queue, "b", (details){0});
    dk_queue_charge(queue, "", 100);
    assert_order(queue, 10, "high a b low");
    assert_order(queue, 3, "high a b");
    assert_order(queue, 1, "high");
    assert_taken(queue, 1, "high");
    assert_taken(queue, 1, "a");
    assert_taken(queue, 1, "b");
    assert_taken(queue, 1, "low");
    dk_queue_destroy(&queue);
}

static void test_least_served_owner_goes_first(void **state)
{
    (void)state;
    dk_queue *queue = dk_queue_create();
    char id[16];
    for (int i = 0; i < 3; i++) {
        snprintf(id, sizeof id, "a%d", i);
        add(queue, id, (details){.owner = "a"});
    }
    add(queue, "b0", (details){.owner = "b"});
    add(queue, "b1", (details){.owner = "b"});
    assert_taken(queue, 1, "a0"); /* equal: the oldest */
    dk_queue_charge(queue, "a", 10);
    assert_order(queue, 10, "b0 b1 a1 a2");
    assert_taken(queue, 1, "b0");
    dk_queue_charge(queue, "b", 4);
    assert_taken(queue, 1, "b1"); /* 4 s against 10 s */
    dk_queue_charge(queue, "b", 7);
    assert_taken(queue, 1, "a1");
    dk_queue_destroy(&queue);
}

/* Priority is above fairness. */
static void test_priority_is_above_fairness(void **state)
{
    (void)state;
    dk_queue *queue = dk_queue_create();
    add(queue, "a", (details){.owner = "a", .priority = 1});
    add(queue, "b", (details){.owner = "b"});
    dk_queue_charge(queue, "a", 1000);
    assert_order(queue, 10, "a b");
    dk_queue_destroy(&queue);
}

/* Who was away has no more credit than the least served of those who stayed. */
static void test_waiting_earns_no_credit(void **state)
{
    (void)state;
    dk_queue *queue = dk_queue_create();
    add(queue, "a0", (details){.owner = "a"});
    add(queue, "a1", (details){.owner = "a"});
    dk_queue_charge(queue, "a", 100);
    add(queue, "b0", (details){.owner = "b"}); /* raised to 100 */
    add(queue, "b1", (details){.owner = "b"});
    assert_order(queue, 10, "a0 a1 b0 b1");
    dk_queue_charge(queue, "a", 1);
    assert_order(queue, 10, "b0 b1 a0 a1");
    dk_queue_charge(queue, "b", 2);
    assert_order(queue, 10, "a0 a1 b0 b1");
    assert_taken(queue, 1, "a0");
    assert_taken(queue, 1, "a1");
    dk_queue_charge(queue, "b", 500);
    add(queue, "a2", (details){.owner = "a"}); /* was away: 101 becomes 602 */
    dk_queue_charge(queue, "a", 1);
    assert_order(queue, 10, "b0 b1 a2");
    dk_queue_destroy(&queue);
}

/* Who comes into an empty house keeps his account. */
static void test_nobody_waits(void **state)
{
    (void)state;
    dk_queue *queue = dk_queue_create();
    dk_queue_charge(queue, "a", 100);
    add(queue, "b", (details){.owner = "b"});
    add(queue, "a", (details){.owner = "a"});
    assert_order(queue, 10, "b a");
    dk_queue_destroy(&queue);
}

static void test_a_task_that_comes_back_keeps_its_place(void **state)
{
    (void)state;
    dk_queue *queue = dk_queue_create();
    dk_task *task;
    double wait_ms;
    add(queue, "a", (details){0});
    add(queue, "b", (details){0});
    add(queue, "c", (details){0});
    assert_int_equal(dk_queue_take(queue, &task, 1, 0, 0, &wait_ms), 1);
    assert_string_equal(task->id, "a");
    add(queue, "d", (details){0});
    dk_queue_add(queue, task);
    assert_string_equal(dk_queue_first(queue)->id, "a");
    assert_order(queue, 10, "a b c d");
    assert_int_equal(dk_queue_depth(queue), 4);
    dk_queue_destroy(&queue);
}

static void test_batches_share_a_signature(void **state)
{
    (void)state;
    dk_queue *queue = dk_queue_create();
    add(queue, "x1", (details){.signature = "x"});
    add(queue, "y1", (details){.signature = "y"});
    add(queue, "alone", (details){0});
    add(queue, "x2", (details){.signature = "x"});
    add(queue, "x3", (details){.signature = "x", .priority = 1});
    add(queue, "x4", (details){.signature = "x"});
    assert_taken(queue, 3, "x3 x1 x2"); /* no more than a batch holds */
    assert_taken(queue, 3, "y1");
    assert_taken(queue, 3, "alone");
    assert_taken(queue, 3, "x4");
    dk_queue_destroy(&queue);
}

static void test_a_batch_waits_for_others(void **state)
{
    (void)state;
    dk_queue *queue = dk_queue_create();
    dk_task *tasks[4];
    double wait_ms;
    add(queue, "a", (details){.signature = "s", .queued_ms = 100});
    assert_int_equal(dk_queue_take(queue, tasks, 2, 50, 120, &wait_ms), 0);
    assert_true(wait_ms > 29.9 && wait_ms < 30.1);
    assert_int_equal(dk_queue_depth(queue), 1);
    assert_int_equal(dk_queue_take(queue, tasks, 2, 50, 150, &wait_ms), 1); /* long enough */
    dk_task_destroy(&tasks[0]);
    add(queue, "b", (details){.signature = "s", .queued_ms = 200});
    add(queue, "c", (details){.signature = "s", .queued_ms = 201});
    assert_int_equal(dk_queue_take(queue, tasks, 2, 50, 201, &wait_ms), 2); /* it is full */
    assert_true(wait_ms <= 0);
    dk_task_destroy(&tasks[0]);
    dk_task_destroy(&tasks[1]);
    add(queue, "d", (details){.queued_ms = 300}); /* shares with none: nothing to wait for */
    assert_int_equal(dk_queue_take(queue, tasks, 2, 50, 300, &wait_ms), 1);
    dk_task_destroy(&tasks[0]);
    add(queue, "e", (details){.signature = "s", .queued_ms = 400});
    assert_int_equal(dk_queue_take(queue, tasks, 1, 50, 400, &wait_ms), 1); /* batches of one */
    dk_task_destroy(&tasks[0]);
    dk_queue_destroy(&queue);
}

static void test_removal_and_deadlines(void **state)
{
    (void)state;
    dk_queue *queue = dk_queue_create();
    add(queue, "a", (details){0});
    add(queue, "b", (details){.deadline_ms = 500});
    add(queue, "c", (details){.deadline_ms = 200});
    assert_null(dk_queue_remove_late(queue, 200));
    dk_task *task = dk_queue_remove_late(queue, 201);
    assert_string_equal(task->id, "c");
    dk_task_destroy(&task);
    assert_null(dk_queue_remove_late(queue, 201));
    task = dk_queue_remove_late(queue, 1e15);
    assert_string_equal(task->id, "b");
    dk_task_destroy(&task);
    assert_null(dk_queue_remove_late(queue, 1e15)); /* "a" has all the time */
    assert_null(dk_queue_remove(queue, "b"));
    task = dk_queue_remove(queue, "a");
    assert_string_equal(task->id, "a");
    dk_task_destroy(&task);
    assert_int_equal(dk_queue_depth(queue), 0);
    dk_queue_destroy(&queue);
}

/* The order that is shown is the order in which they go, whatever the tasks are. */
static void test_order_is_what_take_does(void **state)
{
    (void)state;
    dk_queue *queue = dk_queue_create();
    static const char *const owners[] = {"a", "b", "c"};
    unsigned random = 12345;
    for (int i = 0; i < 200; i++) {
        char id[16];
        random = random * 1103515245u + 12345u;
        snprintf(id, sizeof id, "t%d", i);
        add(queue, id,
            (details){.owner = owners[(random >> 16) % 3],
                      .priority = (int)((random >> 20) % 3) - 1});
    }
    dk_queue_charge(queue, "a", 3);
    dk_queue_charge(queue, "b", 2);
    json_t *ids = dk_queue_order(queue, 1000);
    assert_int_equal(json_array_size(ids), 200);
    for (size_t i = 0; i < 200; i++) {
        assert_taken(queue, 1, json_string_value(json_array_get(ids, i)));
    }
    json_decref(ids);
    dk_queue_destroy(&queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oldest_first),
        cmocka_unit_test(test_priority_goes_first),
        cmocka_unit_test(test_least_served_owner_goes_first),
        cmocka_unit_test(test_priority_is_above_fairness),
        cmocka_unit_test(test_waiting_earns_no_credit),
        cmocka_unit_test(test_nobody_waits),
        cmocka_unit_test(test_a_task_that_comes_back_keeps_its_place),
        cmocka_unit_test(test_batches_share_a_signature),
        cmocka_unit_test(test_a_batch_waits_for_others),
        cmocka_unit_test(test_removal_and_deadlines),
        cmocka_unit_test(test_order_is_what_take_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
