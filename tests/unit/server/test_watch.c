/* Jobs in flight: percent, places in the queue, and watchers that are told the end once. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "server/service/watch.h"
#include "test.h"

/* What a watcher heard. */
typedef struct heard {
    int progress, previews, ends;
    int leaves_after; /* that many notes; 0: never */
    dk_progress_note last;
    int width, height;
    uint8_t first_byte;
} heard;

static bool listen(void *context, const dk_note *note)
{
    heard *h = context;
    h->progress += note->kind == DK_NOTE_PROGRESS;
    h->previews += note->kind == DK_NOTE_PREVIEW;
    h->ends += note->kind == DK_NOTE_END;
    h->last = note->progress;
    if (note->kind == DK_NOTE_PREVIEW) {
        h->width = note->width;
        h->height = note->height;
        h->first_byte = note->preview[0];
    }
    return h->leaves_after == 0 || h->progress + h->previews + h->ends < h->leaves_after;
}

static int percent_of(dk_watch *watch, const char *id)
{
    dk_progress_note note = {.percent = -1};
    assert_true(dk_watch_progress(watch, id, &note));
    return note.percent;
}

static void test_percent_of_one_output(void **state)
{
    (void)state;
    dk_watch *watch = dk_watch_create();
    heard h = {0};
    dk_watch_add(watch, "video_1", 1, 4, 0);
    dk_watch_job(watch, "video_1", listen, &h);
    dk_watch_step(watch, "video_1", 0, "text encoding", 0, 0, 0);
    assert_int_equal(percent_of(watch, "video_1"), 0);
    assert_string_equal(h.last.stage, "text encoding");
    assert_true(h.last.running);
    assert_int_equal(h.last.queue_position, -1);
    static const int wanted[] = {25, 50, 75, 75}; /* decoding is what remains */
    for (int step = 1; step <= 4; step++) {
        dk_watch_step(watch, "video_1", 0, "denoising", step, 4, 1500);
        assert_int_equal(percent_of(watch, "video_1"), wanted[step - 1]);
    }
    assert_int_equal(h.last.step, 4);
    assert_int_equal(h.last.steps, 4);
    assert_true(h.last.eta_s > 1.49 && h.last.eta_s < 1.51);
    dk_watch_output_done(watch, "video_1", 0);
    assert_int_equal(percent_of(watch, "video_1"), 99); /* 100 is what is stored */
    dk_watch_end(watch, "video_1");
    assert_int_equal(h.ends, 1);
    assert_int_equal(h.progress, 5);
    dk_watch_destroy(&watch);
    assert_int_equal(h.ends, 1);
}

/* Two workers make two outputs of a job; the faster one's end takes nothing from the other. */
static void test_percent_of_two_outputs_never_falls(void **state)
{
    (void)state;
    dk_watch *watch = dk_watch_create();
    dk_watch_add(watch, "j", 2, 10, 0);
    int before = 0;
    for (int step = 1; step <= 10; step++) {
        dk_watch_step(watch, "j", 1, "denoising", step, 10, 0);
        if (step % 2 == 0) {
            dk_watch_step(watch, "j", 0, "denoising", step / 2, 10, 0);
        }
        assert_in_range(percent_of(watch, "j"), before, 99);
        before = percent_of(watch, "j");
    }
    dk_watch_output_done(watch, "j", 1);
    assert_int_equal(percent_of(watch, "j"), 75);
    dk_watch_output_done(watch, "j", 1); /* told twice: counted once */
    assert_int_equal(percent_of(watch, "j"), 75);
    dk_watch_step(watch, "j", 0, "denoising", 8, 10, 0);
    assert_int_equal(percent_of(watch, "j"), 90);
    dk_watch_output_done(watch, "j", 0);
    assert_int_equal(percent_of(watch, "j"), 99);
    dk_watch_destroy(&watch);
}

static void test_what_makes_no_sense_is_ignored(void **state)
{
    (void)state;
    dk_watch *watch = dk_watch_create();
    dk_progress_note note;
    dk_watch_add(watch, "j", 2, 0, 0); /* a plan without steps */
    dk_watch_step(watch, "j", 2, "x", 1, 4, 0);
    dk_watch_step(watch, "j", -1, "x", 1, 4, 0);
    dk_watch_step(watch, "other", 0, "x", 1, 4, 0);
    dk_watch_output_done(watch, "j", 7);
    dk_watch_output_done(watch, "j", -1);
    dk_watch_output_done(watch, "other", 0);
    dk_watch_end(watch, "other");
    assert_int_equal(percent_of(watch, "j"), 0);
    assert_false(dk_watch_progress(watch, "other", &note));
    dk_watch_step(watch, "j", 0, "a stage with a name that is longer than its place", 1, 4, 0);
    assert_true(dk_watch_progress(watch, "j", &note));
    assert_int_equal(strlen(note.stage), DK_STAGE_BYTES - 1);
    dk_watch_destroy(&watch);
}

static void test_a_second_add_changes_nothing(void **state)
{
    (void)state;
    dk_watch *watch = dk_watch_create();
    dk_watch_add(watch, "j", 1, 4, 0);
    dk_watch_step(watch, "j", 0, "denoising", 2, 4, 0);
    dk_watch_add(watch, "j", 3, 40, 9); /* a scheduler that started again is given it again */
    assert_int_equal(dk_watch_count(watch), 1);
    assert_int_equal(percent_of(watch, "j"), 50);
    dk_watch_destroy(&watch);
}

static void test_places_in_the_queue(void **state)
{
    (void)state;
    dk_watch *watch = dk_watch_create();
    heard h = {0};
    dk_watch_add(watch, "j", 2, 4, 3.0);
    dk_watch_job(watch, "j", listen, &h);
    dk_watch_queued(watch, "j", 4, 2);
    assert_int_equal(h.last.queue_position, 4);
    assert_false(h.last.running);
    assert_true(h.last.eta_s > 11.99 && h.last.eta_s < 12.01); /* 3 s x (2 outputs + 4 / 2) */
    dk_watch_queued(watch, "j", 4, 2);
    assert_int_equal(h.progress, 1); /* nothing new */
    dk_watch_queued(watch, "j", 0, 0);
    assert_int_equal(h.progress, 2);
    dk_watch_step(watch, "j", 0, "", 0, 0, 0);
    dk_watch_queued(watch, "j", 1, 1); /* it runs: an old report */
    assert_int_equal(h.last.queue_position, -1);
    assert_int_equal(h.progress, 3);
    dk_watch_destroy(&watch);
}

static void test_previews(void **state)
{
    (void)state;
    dk_watch *watch = dk_watch_create();
    heard h = {0};
    const uint8_t rgb[2 * 3 * 3] = {42};
    dk_watch_add(watch, "j", 2, 4, 0);
    dk_watch_job(watch, "j", listen, &h);
    dk_watch_preview(watch, "j", 1, rgb, 3, 2);
    dk_watch_preview(watch, "other", 0, rgb, 3, 2);
    assert_int_equal(h.previews, 1);
    assert_int_equal(h.last.output, 1);
    assert_int_equal(h.width * 10 + h.height, 32);
    assert_int_equal(h.first_byte, 42);
    dk_watch_destroy(&watch);
}

/* END: once, to everybody who stayed; at once for a job that is not in flight. */
static void test_the_end_is_told_once(void **state)
{
    (void)state;
    dk_watch *watch = dk_watch_create();
    heard stays[3] = {{0}}, leaves = {.leaves_after = 2}, late = {0};
    dk_watch_add(watch, "j", 1, 4, 0);
    dk_watch_job(watch, "j", listen, &stays[0]);
    dk_watch_job(watch, "j", listen, &leaves);
    dk_watch_job(watch, "j", listen, &stays[1]);
    for (int step = 1; step <= 3; step++) {
        dk_watch_step(watch, "j", 0, "denoising", step, 4, 0);
    }
    dk_watch_job(watch, "j", listen, &stays[2]);
    assert_true(dk_watch_has(watch, "j"));
    dk_watch_end(watch, "j");
    dk_watch_end(watch, "j");
    assert_false(dk_watch_has(watch, "j"));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(stays[i].ends, 1);
        assert_int_equal(stays[i].progress, i < 2 ? 3 : 0);
    }
    assert_int_equal(leaves.progress, 2);
    assert_int_equal(leaves.ends, 0);
    dk_watch_job(watch, "j", listen, &late);
    assert_int_equal(late.ends, 1);
    dk_watch_destroy(&watch);
    assert_int_equal(late.ends, 1);
}

static void test_end_all(void **state)
{
    (void)state;
    enum { JOBS = 3000 }; /* more than there are buckets */
    static heard h[JOBS];
    dk_watch *watch = dk_watch_create();
    char id[32];
    for (int i = 0; i < JOBS; i++) {
        snprintf(id, sizeof id, "video_%d", i);
        dk_watch_add(watch, id, 1, 4, 0);
        dk_watch_job(watch, id, listen, &h[i]);
    }
    assert_int_equal(dk_watch_count(watch), JOBS);
    dk_watch_end(watch, "video_7");
    assert_int_equal(dk_watch_count(watch), JOBS - 1);
    dk_watch_end_all(watch);
    assert_int_equal(dk_watch_count(watch), 0);
    dk_watch_destroy(&watch);
    assert_null(watch);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(h[i].ends, 1);
    }
}

/* END may call back: it comes without a lock held. */
typedef struct chain {
    dk_watch *watch;
    heard next;
} chain;

static bool go_on(void *context, const dk_note *note)
{
    chain *c = context;
    if (note->kind == DK_NOTE_END) {
        assert_false(dk_watch_has(c->watch, note->id));
        dk_watch_job(c->watch, "second", listen, &c->next);
    }
    return note->kind != DK_NOTE_END;
}

static void test_the_end_may_watch_the_next(void **state)
{
    (void)state;
    chain c = {.watch = dk_watch_create()};
    dk_watch_add(c.watch, "first", 1, 4, 0);
    dk_watch_add(c.watch, "second", 1, 4, 0);
    dk_watch_job(c.watch, "first", go_on, &c);
    dk_watch_end(c.watch, "first");
    dk_watch_step(c.watch, "second", 0, "denoising", 1, 4, 0);
    assert_int_equal(c.next.progress, 1);
    dk_watch_end(c.watch, "second");
    assert_int_equal(c.next.ends, 1);
    dk_watch_destroy(&c.watch);
}

/* Threads that add, watch, step and end the same few jobs: every watcher hears one END. */
enum { ROUNDS = 2000, THREADS = 4 };

typedef struct player {
    dk_watch *watch;
    int number;
    heard h[ROUNDS];
} player;

static void *play(void *argument)
{
    player *p = argument;
    for (int i = 0; i < ROUNDS; i++) {
        char id[16];
        snprintf(id, sizeof id, "j%d", (i + p->number) % 5);
        dk_watch_add(p->watch, id, 2, 4, 1);
        dk_watch_job(p->watch, id, listen, &p->h[i]);
        dk_watch_step(p->watch, id, i % 2, "denoising", 1 + i % 4, 4, 10);
        dk_watch_output_done(p->watch, id, i % 2);
        dk_watch_queued(p->watch, id, i % 3, 2);
        if (i % 3 == 0) {
            dk_watch_end(p->watch, id);
        }
    }
    return NULL;
}

static void test_many_threads(void **state)
{
    (void)state;
    static player players[THREADS];
    pthread_t threads[THREADS];
    dk_watch *watch = dk_watch_create();
    for (int i = 0; i < THREADS; i++) {
        players[i].watch = watch;
        players[i].number = i;
        assert_int_equal(pthread_create(&threads[i], NULL, play, &players[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    dk_watch_destroy(&watch);
    for (int i = 0; i < THREADS * ROUNDS; i++) {
        assert_int_equal(players[i / ROUNDS].h[i % ROUNDS].ends, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percent_of_one_output),
        cmocka_unit_test(test_percent_of_two_outputs_never_falls),
        cmocka_unit_test(test_what_makes_no_sense_is_ignored),
        cmocka_unit_test(test_a_second_add_changes_nothing),
        cmocka_unit_test(test_places_in_the_queue),
        cmocka_unit_test(test_previews),
        cmocka_unit_test(test_the_end_is_told_once),
        cmocka_unit_test(test_end_all),
        cmocka_unit_test(test_the_end_may_watch_the_next),
        cmocka_unit_test(test_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
