/* The hub of tests/unit/hub/hub_server.py as a child process, and a fresh folder. */
#ifndef DK_TESTS_HUB_FIXTURE_H
#define DK_TESTS_HUB_FIXTURE_H

#include <stdbool.h>
#include <sys/types.h>

#define HUB_COMMIT "0123456789abcdef0123456789abcdef01234567"
#define HUB_TOKEN  "hf_secret"
#define HUB_SHARD  "transformer/diffusion_pytorch_model-00002-of-00002.safetensors"

typedef struct hub_fixture {
    char *folder;   /* owned: fresh, removed at the end */
    char *log;      /* owned: the server's log of requests */
    char *endpoint; /* owned: http://127.0.0.1:<hub_port> */
    pid_t server;
    int server_input; /* closing it ends the server */
    int hub_port, store_port;
} hub_fixture;

/* cmocka group fixtures; *state is the hub_fixture. */
int hub_start(void **state);
int hub_stop(void **state);

/* Lines of the server's log that contain `first` and `second`. */
int hub_count(const hub_fixture *fixture, const char *first, const char *second);
/* Regular files and links below a folder, folders themselves not counted; 0 if absent. */
int count_files(const char *folder);
#endif
