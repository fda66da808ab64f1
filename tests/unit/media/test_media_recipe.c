/* Recipes come back from every format as they went in. */
#include "media_fixture.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/string.h"

static const char *const names[] = {"r.png", "r.jpg", "r.webp", "r.mp4", "r.webm", "r.gif"};
enum { NAME_COUNT = sizeof names / sizeof *names, LONG_PROMPT = 70 * 1024 };

static void round_trip(void **state, const char *recipe)
{
    dk_frames frames;
    fixture_frames(&frames, 1, 16, 16);
    for (int i = 0; i < NAME_COUNT; i++) {
        dk_error err;
        char *path = fixture_path(state, names[i]), *read = NULL;
        const dk_media_options options = {.fps = 8, .recipe = recipe};
        assert_ok(dk_media_write(path, &frames, &options, &err), err);
        assert_ok(dk_media_read_recipe(&read, path, &err), err);
        if (strcmp(read, recipe) != 0) {
            fail_msg("%s: %zu bytes became %zu, from '%.60s'", names[i], strlen(recipe),
                     strlen(read), recipe);
        }
        dk_free(read);
        dk_free(path);
    }
    fixture_frames_release(&frames);
}

static void test_texts(void **state)
{
    round_trip(state, "{}");
    round_trip(state, "{\"prompt\":\"a cat\",\"seed\":\"18446744073709551615\"}");
    round_trip(state,
               "{\"prompt\":\"\xE7\x8C\xAB gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\xBA e\xCC\x81 "
               "\xEF\xBB\xBF \xE2\x80\xA8\"}");
    round_trip(state,
               "{\"prompt\":\"\\\"quoted\\\" 'single' ]]> <b>&amp; &lt; &#13; &x; -- --> "
               "<!-- </darkroom:recipe> <darkroom:recipe> darkroom: % %s \\\\ \\u0000\"}");
    round_trip(state, "{\n\t\"prompt\" : \"lines\",\r\n \"b\" : 1\n}\n");
}

/* Two prompts of 70 KiB, of characters of one, two, three and four bytes, so that borders of
   segments fall into the middle of some. */
static void test_long(void **state)
{
    static const char *const characters[] = {"x", "\xC3\xA9", "\xE7\x8C\xAB",
                                             "\xF0\x9F\x98\xBA"};
    for (int shift = 0; shift < 4; shift++) {
        dk_string recipe = DK_STRING_EMPTY;
        dk_string_puts(&recipe, "{\"prompt\":\"");
        for (int i = 0; i < shift; i++) {
            dk_string_putc(&recipe, '<');
        }
        while (recipe.length < LONG_PROMPT) {
            dk_string_puts(&recipe, characters[shift]);
        }
        dk_string_puts(&recipe, "\",\"negative_prompt\":\"");
        for (int i = 0; recipe.length < (size_t)2 * LONG_PROMPT; i++) {
            dk_string_puts(&recipe, characters[i % 4]);
        }
        dk_string_puts(&recipe, "\"}");
        round_trip(state, recipe.data);
        dk_string_release(&recipe);
    }
}

/* A JPEG's recipe is an XMP packet, where other programs look for it. */
static void test_jpeg_holds_xmp(void **state)
{
    static const char signature[] = "http://ns.adobe.com/xap/1.0/";
    dk_error err;
    dk_frames frames;
    char *path = fixture_path(state, "xmp.jpg"), *data;
    size_t size, at = 0;
    fixture_frames(&frames, 1, 16, 16);
    const dk_media_options options = {.recipe = "{\"prompt\":\"a <cat>\"}"};
    assert_ok(dk_media_write(path, &frames, &options, &err), err);
    assert_ok(dk_file_read(&data, &size, path, 1 << 20, &err), err);
    while (at + sizeof signature < size &&
           memcmp(data + at, signature, sizeof signature) != 0) {
        at++;
    }
    assert_true(at + sizeof signature < size);
    assert_int_equal((unsigned char)data[at - 3], 0xE1); /* APP1, then two bytes of length */
    assert_memory_equal(data + at + sizeof signature, "<?xpacket", 9);
    dk_free(data);
    dk_free(path);
    fixture_frames_release(&frames);
}

static void expect(const char *path, dk_status status, const char *message)
{
    dk_error err = {0};
    char *text = NULL;
    assert_int_equal(dk_media_read_recipe(&text, path, &err), status);
    assert_null(text);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, message));
}

/* Files without a recipe, and comments of other programs. */
static void test_absent(void **state)
{
    static const char *const recipes[] = {NULL, "made by somebody else", "", " {}"};
    dk_error err;
    dk_frames frames;
    fixture_frames(&frames, 1, 16, 16);
    for (size_t k = 0; k < sizeof recipes / sizeof *recipes; k++) {
        for (int i = 0; i < NAME_COUNT; i++) {
            char *path = fixture_path(state, names[i]);
            const dk_media_options options = {.fps = 8, .recipe = recipes[k]};
            assert_ok(dk_media_write(path, &frames, &options, &err), err);
            expect(path, DK_NOT_FOUND, "carries no recipe");
            dk_free(path);
        }
    }
    fixture_frames_release(&frames);
}

static void test_too_long(void **state)
{
    dk_error err;
    dk_frames frames;
    char *recipe = dk_alloc(DK_MEDIA_RECIPE_BYTES + 2);
    memset(recipe, ' ', DK_MEDIA_RECIPE_BYTES + 1);
    recipe[0] = '{';
    fixture_frames(&frames, 1, 16, 16);
    for (int i = 0; i < NAME_COUNT; i++) {
        char *path = fixture_path(state, names[i]), *read;
        dk_media_options options = {.fps = 8, .recipe = recipe};
        assert_ok(dk_media_write(path, &frames, &options, &err), err);
        expect(path, DK_FORMAT, "longer than");
        options.recipe = recipe + 1; /* at the limit, but not an object */
        assert_ok(dk_media_write(path, &frames, &options, &err), err);
        expect(path, DK_NOT_FOUND, "carries no recipe");
        recipe[1] = '{';
        assert_ok(dk_media_write(path, &frames, &options, &err), err);
        assert_ok(dk_media_read_recipe(&read, path, &err), err);
        assert_int_equal(strlen(read), DK_MEDIA_RECIPE_BYTES);
        recipe[1] = ' ';
        dk_free(read);
        dk_free(path);
    }
    fixture_frames_release(&frames);
    dk_free(recipe);
}

static void test_by_content(void **state)
{
    dk_error err;
    dk_frames frames;
    char *path = fixture_path(state, "r.gif"), *other = fixture_path(state, "other.png"), *text;
    fixture_frames(&frames, 1, 16, 16);
    const dk_media_options options = {.fps = 8, .recipe = "{\"a\":1}"};
    assert_ok(dk_media_write(path, &frames, &options, &err), err);
    assert_int_equal(rename(path, other), 0);
    assert_ok(dk_media_read_recipe(&text, other, &err), err);
    assert_string_equal(text, "{\"a\":1}");
    dk_free(text);
    assert_ok(dk_file_write(other, "<html>", 6, &err), err);
    expect(other, DK_FORMAT, "accepted are png, jpg, jpeg, webp, mp4, webm, gif");
    assert_ok(dk_file_write(other, "", 0, &err), err);
    expect(other, DK_FORMAT, "accepted are png");
    expect(path, DK_NOT_FOUND, "No such file");
    fixture_frames_release(&frames);
    dk_free(path);
    dk_free(other);
}

/* Every file cut and changed at every byte: a clean answer, the recipe or an error. */
static void test_damaged(void **state)
{
    dk_error err;
    dk_frames frames;
    fixture_frames(&frames, 2, 16, 16);
    for (int i = 0; i < NAME_COUNT; i++) {
        char *path = fixture_path(state, names[i]), *bytes, *text;
        size_t size;
        frames.count = dk_media_is_video(names[i]) ? 2 : 1;
        const dk_media_options options = {.fps = 8, .recipe = "{\"prompt\":\"a cat\"}"};
        assert_ok(dk_media_write(path, &frames, &options, &err), err);
        assert_ok(dk_file_read(&bytes, &size, path, 1 << 20, &err), err);
        for (size_t at = 0; at < size; at++) {
            char *cut = dk_alloc(at + 1),
                 kept = bytes[at]; /* its own memory: ASan sees the end */
            memcpy(cut, bytes, at);
            if (dk_media_decode_recipe(&text, cut, at, "cut", &err) == DK_OK) {
                dk_free(text);
            }
            dk_free(cut);
            bytes[at] = (char)(bytes[at] ^ (at % 3 == 0 ? 0x80 : at % 3 == 1 ? 1 : 0xFF));
            if (dk_media_decode_recipe(&text, bytes, size, "changed", &err) == DK_OK) {
                assert_int_equal(text[0], '{');
                dk_free(text);
            }
            bytes[at] = kept;
        }
        dk_free(bytes);
        dk_free(path);
    }
    fixture_frames_release(&frames);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),          cmocka_unit_test(test_long),
        cmocka_unit_test(test_jpeg_holds_xmp), cmocka_unit_test(test_absent),
        cmocka_unit_test(test_too_long),       cmocka_unit_test(test_by_content),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
