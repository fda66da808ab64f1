/* Strings, arenas, allocation and checksums. */
#include "test.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/string.h"
#include "scratch.h"

static void test_string(void **state)
{
    (void)state;
    dk_string s = DK_STRING_EMPTY;
    assert_string_equal(dk_string_text(&s), "");
    dk_string_clear(&s);
    dk_string_append(&s, NULL, 0);
    assert_string_equal(dk_string_text(&s), "");
    for (int i = 0; i < 1000; i++) {
        dk_string_printf(&s, "%d,", i);
        assert_int_equal(s.data[s.length], '\0');
    }
    assert_int_equal(s.length, 10 * 2 + 90 * 3 + 900 * 4);
    dk_string_clear(&s);
    assert_string_equal(s.data, "");
    dk_string_append(&s, "a\0b", 3);
    dk_string_putc(&s, 'c');
    dk_string_puts(&s, "");
    dk_string_printf(&s, "%s", "");
    assert_int_equal(s.length, 4);
    assert_memory_equal(s.data, "a\0bc", 5);
    char *taken = dk_string_take(&s);
    assert_memory_equal(taken, "a\0bc", 5);
    assert_null(s.data);
    dk_free(taken);
    taken = dk_string_take(&s); /* of an empty one: "" */
    assert_string_equal(taken, "");
    dk_free(taken);
    dk_string_release(&s);
    dk_string_release(&s);
    assert_true(dk_starts_with("abc", "") && dk_starts_with("abc", "abc"));
    assert_false(dk_starts_with("ab", "abc"));
    assert_true(dk_ends_with("abc", "bc") && dk_ends_with("abc", ""));
    assert_false(dk_ends_with("bc", "abc"));
}

static void test_arena(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    dk_arena arena;
    unsigned char *blocks[COUNT];
    size_t sizes[COUNT];
    dk_arena_init(&arena);
    for (size_t i = 0; i < COUNT; i++) {
        sizes[i] = i % 500 == 499 ? 100000 : i % 67;
        blocks[i] = dk_arena_alloc(&arena, sizes[i]);
        assert_int_equal((uintptr_t)blocks[i] % 16, 0);
        for (size_t k = 0; k < sizes[i]; k++) {
            assert_int_equal(blocks[i][k], 0);
        }
        memset(blocks[i], (int)(i & 0xff), sizes[i]);
    }
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t k = 0; k < sizes[i]; k++) {
            assert_int_equal(blocks[i][k], i & 0xff);
        }
    }
    assert_string_equal(dk_arena_strndup(&arena, "abcdef", 3), "abc");
    assert_string_equal(dk_arena_strndup(&arena, "", 0), "");
    assert_string_equal(dk_arena_printf(&arena, "%s-%d", "x", 5), "x-5");
    assert_string_equal(dk_arena_printf(&arena, "%s", ""), "");
    dk_arena_release(&arena);
    dk_arena_release(&arena);
    assert_non_null(dk_arena_alloc(&arena, 1)); /* and starts anew */
    dk_arena_release(&arena);
}

static void test_alloc(void **state)
{
    (void)state;
    dk_error err;
    void *memory = NULL;
    for (size_t bytes = 0; bytes < 300; bytes += 7) {
        assert_ok(dk_try_alloc(&memory, bytes, "test", &err), err);
        assert_int_equal((uintptr_t)memory % DK_ALIGNMENT, 0);
        memset(memory, 1, bytes);
        dk_free(memory);
    }
    memory = NULL;
    assert_int_equal(dk_try_alloc(&memory, SIZE_MAX, "big", &err), DK_MEMORY);
    assert_int_equal(dk_try_alloc(&memory, SIZE_MAX / 4, "big", &err), DK_MEMORY);
    assert_true(dk_starts_with(err.message, "big: "));
    assert_null(memory);
    size_t product;
    assert_true(dk_mul_size(&product, SIZE_MAX / 2, 2) && product == SIZE_MAX - 1);
    assert_false(dk_mul_size(&product, SIZE_MAX / 2 + 1, 2));
    assert_true(dk_add_size(&product, SIZE_MAX - 1, 1) && product == SIZE_MAX);
    assert_false(dk_add_size(&product, SIZE_MAX, 1));
    char *copy = dk_strndup("abc", 2);
    assert_string_equal(copy, "ab");
    dk_free(copy);
}

/* FIPS 180-4's examples, and a file longer than one piece. */
static void test_sums(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sha256, *sha1;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
         "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
         "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
         "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
    };
    dk_error err;
    dk_digest digest = {0};
    char hex[DK_SHA256_HEX_BYTES];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t length = strlen(cases[i].text);
        assert_ok(dk_sha256_init(&digest, &err), err);
        for (size_t k = 0; k < length; k++) {
            dk_digest_update(&digest, cases[i].text + k, 1);
        }
        dk_digest_final(&digest, hex);
        assert_string_equal(hex, cases[i].sha256);
        assert_ok(dk_sha1_init(&digest, &err), err);
        dk_digest_update(&digest, cases[i].text, length);
        dk_digest_final(&digest, hex);
        assert_string_equal(hex, cases[i].sha1);
        dk_digest_release(&digest);
    }
    enum { MILLION = 1000000 };
    char *folder = scratch_create(), *path = dk_path_join(folder, "a"), *as = dk_alloc(MILLION);
    memset(as, 'a', MILLION);
    assert_ok(dk_file_write(path, as, MILLION, &err), err);
    assert_ok(dk_sha256_file(hex, path, &err), err);
    assert_string_equal(hex,
                        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_int_equal(dk_sha256_file(hex, "/nonexistent", &err), DK_NOT_FOUND);
    assert_int_equal(dk_sha256_file(hex, folder, &err), DK_IO);
    dk_free(as);
    dk_free(path);
    scratch_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_string),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_alloc),
        cmocka_unit_test(test_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
