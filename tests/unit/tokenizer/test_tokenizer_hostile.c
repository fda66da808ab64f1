/* Malformed tokenizer files (tests/hostile/tokenizer/cases.json): refused with a message or
   read, never a crash. Files of BPE models, whose reader is not there, must say so. */
#include "test.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/json.h"
#include "base/string.h"
#include "tokenizer/tokenizer.h"

#define FOLDER "tests/hostile/"

static dk_status parse(dk_tokenizer **out, const char *path, const char *bytes, size_t size,
                       dk_error *err)
{
    return dk_ends_with(path, ".model") ? dk_tokenizer_parse_spiece(out, bytes, size, path, err)
                                        : dk_tokenizer_parse_json(out, bytes, size, path, err);
}

static bool is_bpe(const char *bytes)
{
    return strstr(bytes, "\"type\": \"BPE\"") != NULL;
}

static void check_case(const json_t *entry)
{
    dk_error err;
    char *path = dk_path_join(FOLDER, json_string_value(json_object_get(entry, "path"))),
         *bytes;
    const char *expected = json_string_value(json_object_get(entry, "expected"));
    size_t size;
    dk_tokenizer *t = NULL;
    assert_ok(dk_file_read(&bytes, &size, path, 1 << 20, &err), err);
    dk_status status = parse(&t, path, bytes, size, &err);
    if (status == DK_UNSUPPORTED && is_bpe(bytes)) {
        assert_non_null(strstr(err.message, "Unigram"));
    } else if (strcmp(expected, "reject") == 0) {
        assert_true(status == DK_FORMAT || status == DK_UNSUPPORTED);
        assert_non_null(strstr(err.message, path));
        assert_true(strlen(err.message) > strlen(path) + 10);
    } else if (strcmp(expected, "accept") == 0) {
        assert_ok(status, err);
    }
    assert_true((status == DK_OK) == (t != NULL));
    dk_tokenizer_close(&t);
    dk_free(bytes);
    dk_free(path);
}

static void test_cases(void **state)
{
    (void)state;
    dk_error err;
    json_t *root = NULL, *entry;
    size_t i, count = 0;
    assert_ok(dk_json_load(&root, FOLDER "tokenizer/cases.json", DK_JSON_CONFIG_BYTES, &err),
              err);
    json_array_foreach(json_object_get(root, "cases"), i, entry)
    {
        check_case(entry);
        count++;
    }
    json_decref(root);
    assert_true(count >= 25);
}

/* Every file cut at many places, and with single bytes changed: whatever comes out, nothing
   breaks; what still opens still encodes. */
static void damage(const char *path, size_t step)
{
    dk_error err;
    char *bytes;
    size_t size;
    assert_ok(dk_file_read(&bytes, &size, path, 1 << 20, &err), err);
    for (size_t at = 0; at < size; at += step) {
        dk_tokenizer *t = NULL;
        dk_tokens tokens = {0};
        if (parse(&t, path, bytes, at, &err) == DK_OK) {
            dk_tokenizer_close(&t);
        }
        char kept = bytes[at];
        bytes[at] = (char)(bytes[at] ^ (at % 7 == 0 ? 0x80 : 1));
        if (parse(&t, path, bytes, size, &err) == DK_OK) {
            if (dk_tokenizer_encode(t, "a cat \xE7\x8C\xAB</s>", 12, 16, &tokens, &err) ==
                DK_OK) {
                assert_true(tokens.count >= 1 && tokens.count <= 16);
                dk_tokens_release(&tokens);
            }
            dk_tokenizer_close(&t);
        }
        bytes[at] = kept;
    }
    dk_free(bytes);
}

static void test_damaged(void **state)
{
    (void)state;
    damage("tests/golden/tokenizer/wan2.1-i2v/spiece.model", 11);
    damage("tests/golden/tokenizer/tiny-wan/tokenizer.json", 97);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
