/* The link between server and scheduler: ipc in a folder of one's own, tcp with CURVE keys, and
   who is kept out. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/string.h"
#include "scratch.h"
#include "server/wire/link.h"
#include "test.h"

enum { WAIT_MS = 5000, KEY = 41 };

typedef struct pair {
    char secret[KEY], public[KEY];
} pair;

static pair make_keys(void)
{
    pair keys;
    assert_int_equal(zmq_curve_keypair(keys.public, keys.secret), 0);
    return keys;
}

/* Waits for a message; false: none came in time. */
static bool receive(dk_link *link, dk_link_peer *peer, dk_message *out, int wait_ms)
{
    zmq_pollitem_t item = {.socket = dk_link_socket(link), .events = ZMQ_POLLIN};
    bool received = false;
    dk_error err;
    if (zmq_poll(&item, 1, wait_ms) > 0) {
        assert_ok(dk_link_receive(link, peer, out, &received, &err), err);
    }
    return received;
}

static void send_text(dk_link *link, const dk_link_peer *peer, const char *text, size_t blob)
{
    dk_message message;
    dk_error err;
    dk_message_pack(&message, "text", "{s:s}", "text", text);
    if (blob > 0) {
        dk_message_add_blob(&message, memset(dk_alloc(blob), 'b', blob), blob);
    }
    assert_ok(dk_link_send(link, peer, &message, &err), err);
    dk_message_release(&message);
}

static char *ipc_endpoint(const char *folder)
{
    dk_string text = DK_STRING_EMPTY;
    dk_string_printf(&text, "ipc://%s/link", folder);
    return dk_string_take(&text);
}

/* There and back; a large part with it. */
static void talk(dk_link *listener, dk_link *client)
{
    dk_link_peer peer = {0};
    dk_message message;
    send_text(client, NULL, "hello", 3000000);
    assert_true(receive(listener, &peer, &message, WAIT_MS));
    assert_string_equal(dk_message_text(&message, "text"), "hello");
    assert_int_equal(message.blob_count, 1);
    assert_int_equal(message.blobs[0].size, 3000000);
    assert_int_equal(((char *)message.blobs[0].data)[2999999], 'b');
    assert_true(peer.size > 0);
    dk_message_release(&message);
    send_text(listener, &peer, "welcome", 0);
    assert_true(receive(client, NULL, &message, WAIT_MS));
    assert_string_equal(dk_message_text(&message, "text"), "welcome");
    dk_message_release(&message);
}

static void test_ipc(void **state)
{
    (void)state;
    dk_error err;
    dk_link *listener, *client, *second;
    char *folder = scratch_create(), *endpoint = ipc_endpoint(folder);
    assert_int_equal(chmod(folder, 0700), 0);
    assert_ok(dk_link_listen(&listener, endpoint, NULL, &err), err);
    assert_ok(dk_link_connect(&client, endpoint, NULL, &err), err);
    assert_ok(dk_link_connect(&second, endpoint, NULL, &err), err);
    talk(listener, client);
    talk(listener, second);
    dk_link_peer gone = {.size = 5, .name = "nobod"};
    send_text(listener, &gone, "to nobody", 100); /* dropped, no failure */
    send_text(listener, &gone, "to nobody", 0);
    talk(listener, client);
    dk_message message;
    send_text(client, NULL, "anonymous", 0);
    assert_true(receive(listener, NULL, &message, WAIT_MS)); /* who it was need not be asked */
    dk_message_release(&message);
    dk_link_close(&client);
    dk_link_close(&second);
    dk_link_close(&listener);
    assert_null(listener);
    dk_link_close(&listener);
    dk_free(endpoint);
    scratch_remove(folder);
}

static void test_a_listener_that_comes_later(void **state)
{
    (void)state;
    dk_error err;
    dk_link *listener, *client;
    char *folder = scratch_create(), *endpoint = ipc_endpoint(folder);
    assert_int_equal(chmod(folder, 0700), 0);
    assert_ok(dk_link_connect(&client, endpoint, NULL, &err), err);
    send_text(client, NULL, "early", 0);
    assert_ok(dk_link_listen(&listener, endpoint, NULL, &err), err);
    dk_message message;
    assert_true(receive(listener, NULL, &message, WAIT_MS));
    assert_string_equal(dk_message_text(&message, "text"), "early");
    dk_message_release(&message);
    dk_link_close(&client);
    dk_link_close(&listener);
    dk_free(endpoint);
    scratch_remove(folder);
}

static void assert_refused(const char *endpoint, const dk_link_keys *keys, dk_status wanted,
                           const char *words)
{
    dk_error err = {0};
    dk_link *link = NULL;
    dk_status got[] = {dk_link_listen(&link, endpoint, keys, &err),
                       dk_link_connect(&link, endpoint, keys, &err)};
    for (int i = 0; i < 2; i++) {
        if (got[i] != wanted || strstr(err.message, words) == NULL) {
            fail_msg("%s: %s (%s)", endpoint, dk_status_text(got[i]), err.message);
        }
    }
    assert_null(link);
}

static void test_endpoints_that_are_refused(void **state)
{
    (void)state;
    char *folder = scratch_create(), *endpoint = ipc_endpoint(folder);
    static const unsigned modes[] = {0701, 0710, 0777, 0750, 0702};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        assert_int_equal(chmod(folder, modes[i]), 0);
        assert_refused(endpoint, NULL, DK_INVALID, "0700");
    }
    assert_refused("ipc:///nowhere/at/all/link", NULL, DK_NOT_FOUND, "/nowhere/at/all");
    assert_refused("ipc://link", NULL, DK_INVALID, "ipc:///folder/name");
    assert_refused("ipc:///link", NULL, DK_INVALID, "ipc:///folder/name");
    assert_refused("ipc://@abstract/x", NULL, DK_INVALID, "ipc:///folder/name");
    assert_refused("ipc:///etc/passwd/link", NULL, DK_NOT_FOUND, "no folder");
    assert_refused("tcp://127.0.0.1:*", NULL, DK_INVALID, "CURVE");
    assert_refused("tcp://127.0.0.1:*", &(dk_link_keys){0}, DK_INVALID, "CURVE");
    assert_refused("inproc://x", NULL, DK_INVALID, "accepted are");
    assert_refused("", NULL, DK_INVALID, "accepted are");
    dk_free(endpoint);
    scratch_remove(folder);
}

static dk_link *listen_tcp(const dk_link_keys *keys, char endpoint[64])
{
    dk_link *link;
    dk_error err;
    size_t size = 64;
    assert_ok(dk_link_listen(&link, "tcp://127.0.0.1:*", keys, &err), err);
    assert_int_equal(zmq_getsockopt(dk_link_socket(link), ZMQ_LAST_ENDPOINT, endpoint, &size),
                     0);
    return link;
}

static void test_curve(void **state)
{
    (void)state;
    dk_error err;
    dk_link *first, *second;
    char endpoint[64], allowed[2 * KEY + 2];
    pair server = make_keys(), a = make_keys(), b = make_keys();
    snprintf(allowed, sizeof allowed, "%s  %s", a.public, b.public);
    dk_link *listener =
        listen_tcp(&(dk_link_keys){.secret = server.secret, .allowed = allowed}, endpoint);
    const dk_link_keys of_a = {.secret = a.secret, .server_public = server.public},
                       of_b = {.secret = b.secret, .server_public = server.public};
    assert_ok(dk_link_connect(&first, endpoint, &of_a, &err), err);
    assert_ok(dk_link_connect(&second, endpoint, &of_b, &err), err);
    talk(listener, first);
    talk(listener, second);
    dk_link_close(&first);
    dk_link_close(&second);
    dk_link_close(&listener);
}

/* Keys that are not in the list, a wrong server's key, no CURVE at all: nothing comes in. */
static void test_strangers(void **state)
{
    (void)state;
    dk_error err;
    char endpoint[64], allowed[KEY];
    pair server = make_keys(), friend = make_keys(), stranger = make_keys();
    snprintf(allowed, sizeof allowed, "%s", friend.public);
    dk_link *listener =
        listen_tcp(&(dk_link_keys){.secret = server.secret, .allowed = allowed}, endpoint);
    const dk_link_keys wrong[] = {{.secret = stranger.secret, .server_public = server.public},
                                  {.secret = friend.secret, .server_public = stranger.public}};
    dk_message message;
    for (int i = 0; i < 2; i++) {
        dk_link *client;
        assert_ok(dk_link_connect(&client, endpoint, &wrong[i], &err), err);
        send_text(client, NULL, "let me in", 0);
        assert_false(receive(listener, NULL, &message, 400));
        dk_link_close(&client);
    }
    void *context = zmq_ctx_new(), *plain = zmq_socket(context, ZMQ_DEALER);
    int linger = 0;
    zmq_setsockopt(plain, ZMQ_LINGER, &linger, sizeof linger);
    assert_int_equal(zmq_connect(plain, endpoint), 0);
    zmq_send(plain, "{\"v\":1,\"type\":\"x\"}", 18, ZMQ_DONTWAIT);
    assert_false(receive(listener, NULL, &message, 400));
    zmq_close(plain);
    zmq_ctx_term(context);
    dk_link *client;
    const dk_link_keys right = {.secret = friend.secret, .server_public = server.public};
    assert_ok(dk_link_connect(&client, endpoint, &right, &err), err);
    talk(listener, client);
    dk_link_close(&client);
    dk_link_close(&listener);
}

static void test_keys_that_are_none(void **state)
{
    (void)state;
    pair server = make_keys(), client = make_keys();
    char spoilt[KEY];
    memcpy(spoilt, client.secret, KEY);
    spoilt[7] = ' ';
    static const char endpoint[] = "tcp://127.0.0.1:*", words[] = "Z85";
    dk_error err = {0};
    dk_link *link = NULL;
    const char *const bad[] = {"", "short", spoilt};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const dk_link_keys secret = {
            .secret = bad[i], .server_public = server.public, .allowed = client.public};
        const dk_link_keys public = {.secret = client.secret, .server_public = bad[i]};
        assert_int_equal(dk_link_listen(&link, endpoint, &secret, &err), DK_INVALID);
        assert_non_null(strstr(err.message, words));
        assert_int_equal(dk_link_connect(&link, "tcp://127.0.0.1:1", &secret, &err),
                         DK_INVALID);
        assert_non_null(strstr(err.message, words));
        assert_int_equal(dk_link_connect(&link, "tcp://127.0.0.1:1", &public, &err),
                         DK_INVALID);
        assert_non_null(strstr(err.message, words));
    }
    const dk_link_keys nobody = {.secret = server.secret};
    assert_int_equal(dk_link_listen(&link, endpoint, &nobody, &err), DK_INVALID);
    assert_non_null(strstr(err.message, "allowed="));
    assert_null(link);
}

static void write_keys(const char *path, const char *text, unsigned mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void test_key_files(void **state)
{
    (void)state;
    dk_error err = {0};
    char *folder = scratch_create(), *path = scratch_path(folder, "keys"), *text = NULL;
    dk_link_keys keys = {0};
    write_keys(path, "# ours\r\nsecret=abc\r\n\nserver=def\nallowed=x y\nother=1\n", 0600);
    assert_ok(dk_link_keys_read(&keys, &text, path, &err), err);
    assert_string_equal(keys.secret, "abc");
    assert_string_equal(keys.server_public, "def");
    assert_string_equal(keys.allowed, "x y");
    dk_free(text);
    write_keys(path, "secret=abc", 0400);
    assert_ok(dk_link_keys_read(&keys, &text, path, &err), err);
    assert_string_equal(keys.secret, "abc");
    assert_null(keys.allowed);
    dk_free(text);
    keys = (dk_link_keys){0};
    text = NULL;
    static const unsigned modes[] = {0640, 0604, 0666, 0601};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        write_keys(path, "secret=abc\n", modes[i]);
        assert_int_equal(dk_link_keys_read(&keys, &text, path, &err), DK_DENIED);
        assert_non_null(strstr(err.message, "0600"));
    }
    write_keys(path, "server=def\n", 0600);
    assert_int_equal(dk_link_keys_read(&keys, &text, path, &err), DK_FORMAT);
    assert_non_null(strstr(err.message, "secret="));
    assert_null(strstr(err.message, "def"));
    dk_free(path);
    path = scratch_path(folder, "none");
    assert_int_equal(dk_link_keys_read(&keys, &text, path, &err), DK_NOT_FOUND);
    assert_null(text); /* a failure leaves everything as it was */
    assert_null(keys.secret);
    assert_null(keys.server_public);
    dk_free(path);
    scratch_remove(folder);
}

/* What is no message is reported and dropped; the link goes on. */
static void test_garbage(void **state)
{
    (void)state;
    dk_error err;
    dk_link *listener, *client;
    char *folder = scratch_create(), *endpoint = ipc_endpoint(folder);
    assert_int_equal(chmod(folder, 0700), 0);
    assert_ok(dk_link_listen(&listener, endpoint, NULL, &err), err);
    assert_ok(dk_link_connect(&client, endpoint, NULL, &err), err);
    static const char *const frames[][6] = {
        {"", NULL},
        {"x", NULL},
        {"{\"v\":1,\"type\":\"x\"}", "surplus", NULL},
        {"{\"v\":1,\"type\":\"x\",\"blobs\":[3]}", NULL},
        {"{\"v\":1,\"type\":\"x\",\"blobs\":[3]}", "four", NULL},
        {"{\"v\":1,\"type\":\"x\",\"blobs\":[1,1]}", "a", NULL},
        {"{\"v\":1,\"type\":\"x\",\"blobs\":[1,1]}", "a", "b", "c", "d", NULL},
    };
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        for (int f = 0; frames[i][f] != NULL; f++) {
            zmq_send(dk_link_socket(client), frames[i][f], strlen(frames[i][f]),
                     frames[i][f + 1] != NULL ? ZMQ_SNDMORE : 0);
        }
        zmq_pollitem_t item = {.socket = dk_link_socket(listener), .events = ZMQ_POLLIN};
        assert_int_equal(zmq_poll(&item, 1, WAIT_MS), 1);
        dk_link_peer peer;
        dk_message message;
        bool received = true;
        assert_int_equal(dk_link_receive(listener, &peer, &message, &received, &err),
                         DK_FORMAT);
        assert_false(received);
    }
    talk(listener, client);
    dk_link_close(&client);
    dk_link_close(&listener);
    dk_free(endpoint);
    scratch_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ipc),
        cmocka_unit_test(test_a_listener_that_comes_later),
        cmocka_unit_test(test_endpoints_that_are_refused),
        cmocka_unit_test(test_curve),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_keys_that_are_none),
        cmocka_unit_test(test_key_files),
        cmocka_unit_test(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
