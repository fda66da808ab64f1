/* The tokenizer's parts and its edges: limits, truncation, special tokens, errors by name. */
#include "test.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/string.h"
#include "tokenizer/clean.h"
#include "tokenizer/protobuf.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

#define GOLDEN "tests/golden/tokenizer/"

static dk_tokenizer *parse(const char *text)
{
    dk_error err;
    dk_tokenizer *t = NULL;
    assert_ok(dk_tokenizer_parse_json(&t, text, strlen(text), "test.json", &err), err);
    return t;
}

static void assert_refused(const char *text, dk_status expected, const char *part)
{
    dk_error err;
    dk_tokenizer *t = NULL;
    dk_status status = dk_tokenizer_parse_json(&t, text, strlen(text), "test.json", &err);
    if (status != expected || strstr(err.message, part) == NULL) {
        fail_msg("%s: got %s (%s), expected %s with '%s'", text, dk_status_text(status),
                 err.message, dk_status_text(expected), part);
    }
}

static void assert_ids(const dk_tokenizer *t, const char *text, size_t max_length,
                       const char *expected)
{
    dk_error err;
    dk_tokens tokens = {0};
    dk_string got = DK_STRING_EMPTY;
    assert_ok(dk_tokenizer_encode(t, text, strlen(text), max_length, &tokens, &err), err);
    for (size_t i = 0; i < tokens.count; i++) {
        dk_string_printf(&got, "%s%d", i > 0 ? " " : "", (int)tokens.ids[i]);
    }
    assert_string_equal(dk_string_text(&got), expected);
    dk_string_release(&got);
    dk_tokens_release(&tokens);
}

static void test_vocab(void **state)
{
    (void)state;
    static const char *const pieces[] = {"b",          "abc",        "a", "ab",
                                         "abcdefghij", "abcdefghik", "a"};
    dk_vocab vocab;
    dk_vocab_init(&vocab);
    for (int i = 0; i < 7; i++) {
        assert_true(dk_vocab_add(&vocab, pieces[i], strlen(pieces[i]), i));
    }
    dk_vocab_sort(&vocab);
    assert_int_equal(dk_vocab_find(&vocab, "a", 1), 6); /* of two equal ones the last */
    assert_int_equal(dk_vocab_find(&vocab, "abcdefghik", 10), 5);
    assert_int_equal(dk_vocab_find(&vocab, "abcd", 4), -1);
    assert_int_equal(dk_vocab_find(&vocab, "", 0), -1);
    dk_vocab_walk walk = dk_vocab_walk_begin(&vocab, "abcdefghijx", 11);
    const int32_t ids[] = {6, 3, 1, 4};
    for (size_t i = 0; i < 4; i++) {
        assert_true(dk_vocab_walk_next(&walk));
        assert_int_equal(walk.id, ids[i]);
    }
    assert_false(dk_vocab_walk_next(&walk));
    dk_vocab_release(&vocab);
}

static void test_protobuf(void **state)
{
    (void)state;
    static const unsigned char good[] = {0x08, 0x96, 0x01, 0x12, 0x02, 'h',
                                         'i',  0x1D, 0,    0,    0x80, 0x3F};
    dk_protobuf reader = {.bytes = good, .size = sizeof(good)};
    dk_protobuf_field field;
    assert_true(dk_protobuf_next(&reader, &field));
    assert_int_equal(field.value, 150);
    assert_true(dk_protobuf_next(&reader, &field));
    assert_memory_equal(field.bytes, "hi", 2);
    assert_true(dk_protobuf_next(&reader, &field));
    assert_true(dk_protobuf_float(&field) == 1.0F);
    assert_false(dk_protobuf_next(&reader, &field));
    assert_false(reader.bad);
    for (size_t size = 1; size < sizeof(good); size++) {
        reader = (dk_protobuf){.bytes = good, .size = size};
        while (dk_protobuf_next(&reader, &field)) {
        }
        assert_int_equal(reader.bad, size != 3 && size != 7);
    }
}

static void test_special_tokens(void **state)
{
    dk_error err;
    dk_tokenizer *t = NULL;
    (void)state;
    assert_ok(dk_tokenizer_open(&t, GOLDEN "wan2.1-i2v", &err), err);
    assert_int_equal(dk_tokenizer_pad_id(t), 0);
    assert_int_equal(dk_tokenizer_eos_id(t), 1);
    assert_int_equal(dk_tokenizer_unk_id(t), 2);
    assert_int_equal(dk_tokenizer_vocab_size(t), 518);
    assert_int_equal(dk_tokenizer_largest_id(t), 517);
    assert_int_equal(dk_tokenizer_max_length(t), 512);
    assert_int_equal(dk_tokenizer_find(t, "<extra_id_0>"), 517);
    assert_int_equal(dk_tokenizer_find(t, "no such piece"), -1);
    dk_tokenizer_close(&t);
    assert_null(t);
}

static void test_truncation(void **state)
{
    dk_error err;
    dk_tokenizer *t = NULL;
    dk_tokens tokens = {0};
    (void)state;
    assert_ok(dk_tokenizer_open(&t, GOLDEN "tiny-wan", &err), err);
    assert_ids(t, "a red star on a blue background", 512, "259 278 272 261 259 281 262 1");
    assert_ids(t, "a red star on a blue background", 4, "259 278 272 1");
    assert_ids(t, "a red star on a blue background", 2, "259 1");
    assert_ids(t, "", 2, "1");
    assert_int_equal(dk_tokenizer_encode(t, "a", 1, 1, &tokens, &err), DK_INVALID);
    assert_int_equal(dk_tokenizer_encode(t, "a\xC3(", 3, 9, &tokens, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "byte 1 "));
    assert_int_equal(
        dk_tokenizer_encode(t, "a", (size_t)DK_TOKENIZER_MAX_TEXT + 1, 9, &tokens, &err),
        DK_INVALID);
    dk_tokenizer_close(&t);
}

#define MODEL(vocab) "\"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"vocab\": " vocab "}"
#define SMALL        MODEL("[[\"<unk>\", 0], [\"a\", -1.5], [\"\\u2581a\", -1e0], [\"\\u2581\", -2]]")

static void test_small(void **state)
{
    (void)state;
    dk_tokenizer *t = parse("{" SMALL "}");
    assert_ids(t, "aab", 9, "1 1 0");
    assert_ids(t, "bcd", 9, "0"); /* unknown characters in a row are one */
    dk_tokenizer_close(&t);
    t = parse("{" SMALL ", \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": "
              "\"\\u2581\", \"prepend_scheme\": \"first\", \"split\": false}}");
    assert_ids(t, "a a", 9, "2 2");
    dk_tokenizer_close(&t);
    t = parse("{" SMALL
              ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": "
              "\"Lowercase\"}, {\"type\": \"Prepend\", \"prepend\": \"a\"}, {\"type\": "
              "\"Replace\", \"pattern\": {\"String\": \"xx\"}, \"content\": \"a\"}, {\"type\": "
              "\"NFKC\"}]}}");
    assert_ids(t, "AXX\xEF\xBD\x81", 9, "1 1 1 1"); /* the last letter is a wide a */
    dk_tokenizer_close(&t);
}

static void test_added_flags(void **state)
{
    (void)state;
    dk_tokenizer *t = parse(
        "{\"added_tokens\": [{\"id\": 4, \"content\": \"<x>\", \"lstrip\": true, \"rstrip\": "
        "true, \"normalized\": false, \"single_word\": false, \"special\": true}, {\"id\": 5, "
        "\"content\": \"aa\", \"single_word\": true, \"lstrip\": false, \"rstrip\": false, "
        "\"normalized\": true, \"special\": false}], " SMALL "}");
    assert_ids(t, "a <x> a", 9, "1 4 1");
    assert_ids(t, "a<x><x>", 9, "1 4 4");
    assert_ids(t, "aa", 9, "5");
    assert_ids(t, "aaa", 9, "1 1 1");
    assert_int_equal(dk_tokenizer_largest_id(t), 5);
    dk_tokenizer_close(&t);
}

static void test_refused(void **state)
{
    (void)state;
    assert_refused("", DK_FORMAT, "test.json");
    assert_refused("[]", DK_FORMAT, "an array");
    assert_refused("{}", DK_FORMAT, "'model'");
    assert_refused("{\"model\": {\"type\": \"BPE\", \"vocab\": {}}}", DK_UNSUPPORTED,
                   "Unigram");
    assert_refused("{" MODEL("{}") "}", DK_FORMAT, "an array of [piece, score]");
    assert_refused("{" MODEL("[]") "}", DK_FORMAT, "empty");
    assert_refused("{" MODEL("[[\"a\"]]") "}", DK_FORMAT, "score");
    assert_refused("{" MODEL("[[\"a\", 01]]") "}", DK_FORMAT, "number");
    assert_refused("{" MODEL("[[\"a\", 1e999]]") "}", DK_FORMAT, "finite");
    assert_refused("{" MODEL("[[\"\\ud800\", 1]]") "}", DK_FORMAT, "surrogates");
    assert_refused("{" MODEL("[[\"\xff\", 1]]") "}", DK_FORMAT, "UTF-8");
    assert_refused("{" MODEL("[[\"a\", 1],]") "}", DK_FORMAT, "[piece, score]");
    assert_refused("{" MODEL("[[\"a\", 1]") "}", DK_FORMAT, "test.json");
    assert_refused("{" SMALL ", \"normalizer\": {\"type\": \"Nmt\"}}", DK_UNSUPPORTED, "NFKC");
    assert_refused("{" SMALL ", \"normalizer\": {\"type\": \"Replace\", \"pattern\": "
                   "{\"Regex\": \"([\"}, \"content\": \"\"}}",
                   DK_FORMAT, "regular expression");
    assert_refused("{" SMALL ", \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}", DK_UNSUPPORTED,
                   "Metaspace");
    assert_refused("{" SMALL ", \"post_processor\": {\"type\": \"RobertaProcessing\"}}",
                   DK_UNSUPPORTED, "TemplateProcessing");
}

/* An expression that backtracks without end, and replacements that double the text again and
   again: both end with an error. */
static void test_bounded(void **state)
{
    dk_error err;
    dk_tokens tokens = {0};
    char text[80];
    (void)state;
    memset(text, 'a', sizeof(text));
    text[64] = 'b';
    dk_tokenizer *t = parse("{" SMALL ", \"normalizer\": {\"type\": \"Replace\", \"pattern\": "
                            "{\"Regex\": \"(a+)+$\"}, \"content\": \"\"}}");
    assert_int_equal(dk_tokenizer_encode(t, text, 65, 9, &tokens, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "too many steps"));
    dk_tokenizer_close(&t);
    dk_string json = DK_STRING_EMPTY;
    dk_string_puts(&json,
                   "{" SMALL ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [");
    for (int i = 0; i < 40; i++) {
        dk_string_printf(&json,
                         "%s{\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}, "
                         "\"content\": \"aa\"}",
                         i > 0 ? ", " : "");
    }
    dk_string_puts(&json, "]}}");
    t = parse(json.data);
    assert_int_equal(dk_tokenizer_encode(t, text, 65, 9, &tokens, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "grows"));
    dk_tokenizer_close(&t);
    dk_string_release(&json);
}

static void test_open_fails(void **state)
{
    dk_error err;
    dk_tokenizer *t = NULL;
    (void)state;
    assert_int_equal(dk_tokenizer_open(&t, GOLDEN "no-such-folder", &err), DK_NOT_FOUND);
    assert_non_null(strstr(err.message, "tokenizer.json"));
}

static void test_clean_edges(void **state)
{
    dk_error err;
    dk_string out = DK_STRING_EMPTY;
    (void)state;
    assert_int_equal(dk_clean_prompt_wan(&out, "ab\xE2\x82", 4, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "byte 2 "));
    assert_ok(dk_clean_prompt_wan(&out, " \n ", 3, &err), err);
    assert_string_equal(dk_string_text(&out), "");
    assert_ok(dk_clean_prompt_wan(&out, "a\0b", 3, &err), err);
    assert_string_equal(dk_string_text(&out), "ab");
    dk_string_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vocab),          cmocka_unit_test(test_protobuf),
        cmocka_unit_test(test_special_tokens), cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_small),          cmocka_unit_test(test_added_flags),
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_open_fails),     cmocka_unit_test(test_clean_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
