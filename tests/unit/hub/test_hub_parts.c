/* The parts behind dk_hub_resolve that need no server: names, checksums, the listing and the
   choice of files, and what makes a folder complete. */
#define _XOPEN_SOURCE 700 /* mkdtemp */
#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/string.h"
#include "hub/cache.h"
#include "hub/components.h"
#include "hub/http.h"
#include "hub/listing.h"

#define SHA1_ZEROS   "0000000000000000000000000000000000000000"
#define SHA256_ZEROS SHA1_ZEROS "000000000000000000000000"

/* ---- checksums ---- */

static void sha256_of(char *hex, const char *text, size_t times)
{
    dk_digest digest;
    dk_error err = {0};
    assert_ok(dk_sha256_init(&digest, &err), err);
    for (size_t i = 0; i < times; i++) {
        dk_digest_update(&digest, text, strlen(text));
    }
    dk_digest_final(&digest, hex);
    dk_digest_release(&digest); /* is harmless */
}

static void test_checksums(void **state)
{
    (void)state;
    char hex[DK_SHA256_HEX_BYTES];
    /* FIPS 180-2, appendix B. */
    sha256_of(hex, "abc", 1);
    assert_string_equal(hex,
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_of(hex, "aaaaaaaaaa", 100000);
    assert_string_equal(hex,
                        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    sha256_of(hex, "", 0);
    assert_string_equal(hex,
                        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    dk_digest digest;
    dk_error err = {0};
    assert_ok(dk_sha1_init(&digest, &err), err);
    dk_digest_update(&digest, "abc", 3);
    dk_digest_final(&digest, hex);
    assert_string_equal(hex, "a9993e364706816aba3e25717850c26c9cd0d89d");
}

static void test_checksum_of_a_file(void **state)
{
    const char *folder = *state;
    char hex[DK_SHA256_HEX_BYTES], expected[DK_SHA256_HEX_BYTES];
    dk_error err = {0};
    char *path = dk_path_join(folder, "million");
    char *text = dk_alloc(3000000);
    memset(text, 'a', 3000000);
    assert_ok(dk_file_write(path, text, 3000000, &err), err); /* more than one piece */
    assert_ok(dk_sha256_file(hex, path, &err), err);
    sha256_of(expected, "aaaaaaaaaa", 300000);
    assert_string_equal(hex, expected);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(dk_sha256_file(hex, path, &err), DK_NOT_FOUND);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(dk_sha256_file(hex, folder, &err), DK_IO);
    dk_free(text);
    dk_free(path);
}

/* ---- names ---- */

static void test_names(void **state)
{
    (void)state;
    static const char *const good[] = {"Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "a/b", "A_b.c/x-1"};
    static const char *const bad[] = {"",     "a",     "/a",    "a/",    "a//b",  "a/b/c",
                                      "a/..", "../a",  ".a/b",  "a/b.",  "-a/b",  "a/b-",
                                      "a/b ", "a/b\n", "a/b%2", "a\\/b", "a/b--", "x..y/b"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(dk_hub_is_model_name(good[i]));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (dk_hub_is_model_name(bad[i])) {
            fail_msg("'%s' is accepted", bad[i]);
        }
    }
    char longest[200];
    memset(longest, 'a', sizeof longest);
    longest[1] = '/';
    longest[2 + 96] = '\0';
    assert_true(dk_hub_is_model_name(longest));
    longest[2 + 96] = 'a';
    longest[2 + 97] = '\0';
    assert_false(dk_hub_is_model_name(longest));
    assert_true(dk_hub_is_revision("refs/pr/1"));
    assert_false(dk_hub_is_revision("refs/../x"));
    assert_true(dk_hub_is_hex(SHA1_ZEROS, 40));
    assert_false(dk_hub_is_hex(SHA1_ZEROS, 64));
    assert_false(dk_hub_is_hex("000000000000000000000000000000000000000G", 40));
}

static void test_escape(void **state)
{
    (void)state;
    char *text = dk_http_escape("a b/\xc3\xa4?#%&+.json", true);
    assert_string_equal(text, "a%20b/%C3%A4%3F%23%25%26%2B.json");
    dk_free(text);
    text = dk_http_escape("refs/pr/1", false);
    assert_string_equal(text, "refs%2Fpr%2F1");
    dk_free(text);
}

/* ---- the listing ---- */

static dk_status parse(dk_hub_listing *listing, const char *text, dk_error *err)
{
    return dk_hub_listing_parse(listing, text, strlen(text), "org/x", err);
}

static void test_hostile_listings(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"sha\": 1}",
        "{\"sha\": \"" SHA1_ZEROS "\"}",
        "{\"sha\": \"" SHA1_ZEROS "\", \"siblings\": {}}",
        "{\"sha\": \"" SHA1_ZEROS "\", \"siblings\": [1]}",
        "{\"sha\": \"" SHA1_ZEROS "\", \"siblings\": [{}]}",
        "{\"sha\": \"" SHA1_ZEROS "\", \"siblings\": [{\"rfilename\": null}]}",
        "{\"sha\": \"../../../etc\", \"siblings\": []}",
        "{\"sha\": \"" SHA256_ZEROS "\", \"siblings\": []}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        dk_hub_listing listing = {0};
        dk_error err = {0};
        if (parse(&listing, bad[i], &err) != DK_FORMAT) {
            fail_msg("accepted: %s", bad[i]);
        }
        assert_non_null(strstr(err.message, "org/x"));
    }
}

/* Size and checksum of an entry, or why it is of no use. */
static void test_entries(void **state)
{
    (void)state;
    static const struct {
        const char *entry;
        dk_status status;
    } cases[] = {
        {"\"vae/x\", \"size\": 1, \"blobId\": \"" SHA1_ZEROS "\"", DK_OK},
        {"\"vae/x\", \"size\": 1, \"blobId\": \"" SHA1_ZEROS
         "\", \"lfs\": {\"sha256\": \"" SHA256_ZEROS "\"}",
         DK_OK},
        {"\"vae/x\"", DK_FORMAT},
        {"\"vae/x\", \"size\": -1, \"blobId\": \"" SHA1_ZEROS "\"", DK_FORMAT},
        {"\"vae/x\", \"size\": 1.5, \"blobId\": \"" SHA1_ZEROS "\"", DK_FORMAT},
        {"\"vae/x\", \"size\": 1, \"blobId\": \"../../escape\"", DK_FORMAT},
        {"\"vae/x\", \"size\": 1, \"blobId\": \"" SHA256_ZEROS "\"", DK_FORMAT},
        {"\"vae/x\", \"size\": 1, \"lfs\": {\"sha256\": \"" SHA1_ZEROS "\"}", DK_FORMAT},
        {"\"../x\", \"size\": 1, \"blobId\": \"" SHA1_ZEROS "\"", DK_FORMAT},
        {"\"vae/../x\", \"size\": 1, \"blobId\": \"" SHA1_ZEROS "\"", DK_FORMAT},
        {"\"/x\", \"size\": 1, \"blobId\": \"" SHA1_ZEROS "\"", DK_FORMAT},
        {"\"a\\nb\", \"size\": 1, \"blobId\": \"" SHA1_ZEROS "\"", DK_FORMAT},
        {"\"vae//x\", \"size\": 1, \"blobId\": \"" SHA1_ZEROS "\"", DK_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dk_string text = DK_STRING_EMPTY;
        dk_hub_listing listing = {0};
        dk_error err = {0};
        dk_string_printf(&text,
                         "{\"sha\": \"" SHA1_ZEROS "\", \"siblings\": [{\"rfilename\": %s}]}",
                         cases[i].entry);
        assert_ok(parse(&listing, text.data, &err), err);
        assert_int_equal(listing.count, 1);
        if (dk_hub_file_check(&listing.files[0], "org/x", &err) != cases[i].status) {
            fail_msg("%s: expected status %d", cases[i].entry, (int)cases[i].status);
        }
        dk_hub_listing_release(&listing);
        dk_string_release(&text);
    }
}

/* Asserts that exactly the files marked '+' are needed. */
static void assert_choice(const char *const *marked, size_t count)
{
    static const dk_hub_component components[] = {
        {(char *)(uintptr_t) "unet", DK_HUB_MODEL},
        {(char *)(uintptr_t) "tokenizer_2", DK_HUB_TOKENIZER},
        {(char *)(uintptr_t) "scheduler", DK_HUB_SCHEDULER},
        {(char *)(uintptr_t) "processor", DK_HUB_PROCESSOR}};
    const dk_hub_components known = {(dk_hub_component *)(uintptr_t)components, 4};
    dk_hub_file *files = dk_alloc(count * sizeof *files);
    for (size_t i = 0; i < count; i++) {
        files[i].path = marked[i] + 1;
    }
    dk_hub_listing listing = {.files = files, .count = count};
    for (size_t i = 0; i < count; i++) {
        if (dk_hub_file_is_needed(&listing, &known, &files[i]) != (marked[i][0] == '+')) {
            fail_msg("%s", marked[i]);
        }
    }
    dk_free(files);
}

static void test_choice(void **state)
{
    (void)state;
    static const char *const sharded[] = {
        "+unet/config.json",
        "+unet/model.safetensors.index.json",
        "+unet/model-00001-of-00002.safetensors",
        "+unet/model-00002-of-00002.safetensors",
        "-unet/model.safetensors",
        "-unet/model.fp16.safetensors",
        "-unet/model.fp16.safetensors.index.json",
        "-unet/model.fp16-00001-of-00002.safetensors",
        "-unet/model-00001-of-00002.fp16.safetensors",
        "-unet/model-0001-of-0002.safetensors",
        "-unet/other.safetensors",
        "-unet/pytorch_model.bin.index.json",
        "-unet/flax_model.msgpack.index.json",
        "-unet/flax_config.json",
        "-unet/model.onnx",
        "-unet/old/config.json",
        "+scheduler/scheduler_config.json",
        "+tokenizer_2/spiece.model",
        "+tokenizer_2/extra/vocab.bpe",
        "-tokenizer_2/model.onnx",
        "-tokenizer_2/model.safetensors",
        "+processor/chat_template.jinja",
        "+processor/merges.txt",
        "-processor/model.safetensors",
        "-model_index.json",
        "-README.md",
        "-unet",
        "-other/config.json",
        "-unets/config.json",
        "-",
        "-/config.json",
        "-../config.json",
    };
    assert_choice(sharded, sizeof sharded / sizeof sharded[0]);
    static const char *const both[] = {"+unet/diffusion_pytorch_model.safetensors",
                                       "-unet/model.safetensors",
                                       "-unet/diffusion_pytorch_model.fp16.safetensors",
                                       "-unet/diffusion_pytorch_model.non_ema.safetensors"};
    assert_choice(both, sizeof both / sizeof both[0]);
    static const char *const variant[] = {"-unet/model.fp16.safetensors"};
    assert_choice(variant, 1);
}

/* ---- complete folders ---- */

static void put(const char *folder, const char *name, const char *text)
{
    dk_error err = {0};
    char *path = dk_path_join(folder, name);
    char *parent = dk_strndup(path, (size_t)(dk_path_name(path) - path) - 1);
    assert_ok(dk_make_folders(parent, &err), err);
    assert_ok(dk_file_write(path, text, strlen(text), &err), err);
    dk_free(parent);
    dk_free(path);
}

static void expect(const char *folder, dk_status status, const char *text)
{
    dk_error err = {0};
    dk_status got = dk_hub_check_folder(folder, &err);
    if (got != status || strstr(err.message, text) == NULL) {
        fail_msg("status %d, expected %d with '%s': %s", (int)got, (int)status, text,
                 err.message);
    }
}

static void test_complete_folder(void **state)
{
    char *folder = dk_path_join(*state, "model");
    expect(folder, DK_NOT_FOUND, "model_index.json is missing");
    put(folder, "model_index.json", "[]");
    expect(folder, DK_FORMAT, "expected an object");
    put(folder, "model_index.json", "{\"_class_name\": \"X\", \"n\": [null, null]}");
    expect(folder, DK_FORMAT, "names no components");
    put(folder, "model_index.json", "{\"../x\": [\"diffusers\", \"Model\"]}");
    expect(folder, DK_FORMAT, "'../x'");
    put(folder, "model_index.json",
        "{\"scheduler\": [\"diffusers\", \"XScheduler\"], \"tokenizer\": [\"transformers\", "
        "\"XTokenizerFast\"], \"unet\": [\"diffusers\", \"XModel\"], \"image\": "
        "[\"transformers\","
        " \"CLIPFeatureExtractor\"]}");
    expect(folder, DK_NOT_FOUND, "scheduler/scheduler_config.json");
    put(folder, "scheduler/scheduler_config.json", "{}");
    expect(folder, DK_NOT_FOUND, "tokenizer/tokenizer.json");
    put(folder, "tokenizer/vocab.json", "{}");
    expect(folder, DK_NOT_FOUND, "tokenizer/merges.txt");
    put(folder, "tokenizer/merges.txt", "");
    expect(folder, DK_NOT_FOUND, "unet/config.json");
    put(folder, "unet/config.json", "{}");
    expect(folder, DK_NOT_FOUND, "unet has no weights");
    put(folder, "unet/model.fp16.safetensors", "");
    expect(folder, DK_NOT_FOUND, "unet has no weights");
    put(folder, "unet/model.safetensors.index.json", "{}");
    expect(folder, DK_FORMAT, "weight_map");
    put(folder, "unet/model.safetensors.index.json", "{\"weight_map\": {\"a\": \"../s\"}}");
    expect(folder, DK_FORMAT, "tensor 'a'");
    put(folder, "unet/model.safetensors.index.json",
        "{\"weight_map\": {\"a\": \"s1\", \"b\": \"s1\", \"c\": \"s2\"}}");
    put(folder, "unet/s1", "");
    expect(folder, DK_NOT_FOUND, "unet/s2 is missing");
    put(folder, "unet/s2", "");
    expect(folder, DK_NOT_FOUND, "image/preprocessor_config.json");
    put(folder, "image/preprocessor_config.json", "{}");
    expect(folder, DK_OK, "");
    dk_free(folder);
}

/* ---- the cache ---- */

static void test_links(void **state)
{
    dk_hub_cache cache;
    dk_error err = {0};
    dk_hub_cache_init(&cache, *state, "org/name");
    char target[256] = "", commit[DK_HUB_COMMIT_BYTES];
    assert_false(dk_hub_cache_commit(commit, &cache, "main"));
    assert_ok(dk_hub_cache_link(&cache, SHA1_ZEROS, "a/b/c.json", SHA256_ZEROS, &err), err);
    char *snapshot = dk_hub_cache_snapshot(&cache, SHA1_ZEROS);
    char *path = dk_path_join(snapshot, "a/b/c.json");
    assert_true(readlink(path, target, sizeof target - 1) > 0);
    assert_string_equal(target, "../../../../blobs/" SHA256_ZEROS);
    /* Again is no change; another blob takes its place. */
    assert_ok(dk_hub_cache_link(&cache, SHA1_ZEROS, "a/b/c.json", SHA256_ZEROS, &err), err);
    assert_ok(dk_hub_cache_link(&cache, SHA1_ZEROS, "a/b/c.json", SHA1_ZEROS, &err), err);
    memset(target, 0, sizeof target);
    assert_true(readlink(path, target, sizeof target - 1) > 0);
    assert_string_equal(target, "../../../../blobs/" SHA1_ZEROS);
    /* A file cannot be a folder too. */
    assert_int_equal(
        dk_hub_cache_link(&cache, SHA1_ZEROS, "a/b/c.json/d", SHA1_ZEROS, &err) == DK_OK, 0);
    put(cache.root, "refs/main", "0123\n");
    assert_false(dk_hub_cache_commit(commit, &cache, "main"));
    put(cache.root, "refs/main", SHA1_ZEROS "\n");
    assert_true(dk_hub_cache_commit(commit, &cache, "main"));
    assert_string_equal(commit, SHA1_ZEROS);
    assert_ok(dk_hub_cache_check_space(&cache, 1, &err), err);
    assert_int_equal(dk_hub_cache_check_space(&cache, UINT64_MAX / 2, &err), DK_IO);
    dk_free(path);
    dk_free(snapshot);
    dk_hub_cache_release(&cache);
}

static int make_folder(void **state)
{
    const char *base = getenv("TMPDIR");
    dk_string text = DK_STRING_EMPTY;
    dk_string_printf(&text, "%s/darkroom-hub-parts-XXXXXX", base != NULL ? base : "/tmp");
    *state = dk_string_take(&text);
    return mkdtemp(*state) != NULL ? 0 : -1;
}

static int remove_folder(void **state)
{
    pid_t child = fork();
    if (child == 0) {
        execlp("rm", "rm", "-rf", (char *)*state, (char *)NULL);
        _exit(127);
    }
    waitpid(child, NULL, 0);
    dk_free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checksums),
        cmocka_unit_test(test_checksum_of_a_file),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_hostile_listings),
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_complete_folder),
        cmocka_unit_test(test_links),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
