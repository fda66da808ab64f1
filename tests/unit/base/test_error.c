/* Messages: one line of valid UTF-8 within the buffer, whatever goes in. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/alloc.h"

/* jansson refuses text that is no UTF-8. */
static void assert_line(const char *text)
{
    json_t *value = json_string(text);
    if (value == NULL) {
        fail_msg("no UTF-8: %s", text);
    }
    json_decref(value);
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
        assert_true(*c >= 0x20 && *c != 0x7f);
    }
}

static void test_facts(void **state)
{
    (void)state;
    assert_string_equal(dk_status_text(DK_OK), "ok");
    assert_int_equal(dk_status_exit_code(DK_OK), 0);
    for (int i = 1; i < DK_STATUS_COUNT; i++) {
        for (int k = 0; k < i; k++) {
            assert_int_not_equal(dk_status_exit_code((dk_status)i),
                                 dk_status_exit_code((dk_status)k));
        }
        assert_true(dk_status_http((dk_status)i) >= 400);
    }
    assert_string_equal(dk_status_text((dk_status)999), dk_status_text(DK_INTERNAL));
    assert_string_equal(dk_status_text((dk_status)-1), dk_status_text(DK_INTERNAL));
}

static void test_messages(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},
        {"two\nlines\r\x1b[2J\x7f", "two?lines??[2J?"},
        {"\xff\xfe", "??"},
        {"caf\xc3\xa9 \xe7\x8c\xab \xf0\x9f\x90\xb1",
         "caf\xc3\xa9 \xe7\x8c\xab \xf0\x9f\x90\xb1"},
        {"\xc3", "?"},
        {"\xe2\x82", "??"},
        {"\xc0\xaf", "??"},           /* overlong */
        {"\xed\xa0\x80", "???"},      /* a surrogate */
        {"\xf4\x90\x80\x80", "????"}, /* above U+10FFFF */
        {"\xc2\x9b"
         "31m",
         "??31m"}, /* a control character of two bytes */
    };
    dk_error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(dk_fail(&err, DK_IO, "%s", cases[i].in), DK_IO);
        assert_string_equal(err.message, cases[i].out);
        assert_int_equal(err.status, DK_IO);
    }
    assert_int_equal(dk_fail(NULL, DK_MEMORY, "%d", 1), DK_MEMORY);
    assert_int_equal(dk_fail_in(NULL, DK_MEMORY, "%d", 1), DK_MEMORY);
}

/* A message that does not fit is cut between two characters. */
static void test_long(void **state)
{
    (void)state;
    dk_error err;
    for (int shift = 0; shift < 4; shift++) {
        char *text = dk_alloc(5000);
        memset(text, 'a', (size_t)shift);
        for (int i = 0; i < 1000; i++) {
            memcpy(text + shift + 4 * i, "\xf0\x9f\x90\xb1", 4);
        }
        dk_fail(&err, DK_IO, "%s", text);
        assert_line(err.message);
        assert_true(strlen(err.message) > DK_ERROR_MESSAGE_BYTES - 8);
        assert_null(strchr(err.message, '?'));
        dk_fail_in(&err, DK_FORMAT, "%s", "\xc3\xa9x");
        assert_line(err.message);
        assert_int_equal(err.status, DK_FORMAT);
        assert_int_equal(strncmp(err.message, "\xc3\xa9x: ", 5), 0);
        assert_null(strchr(err.message, '?'));
        dk_fail_in(&err, DK_FORMAT, "%s", text);
        assert_line(err.message);
        dk_free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
