/* Signal handling of the command: the one place with mutable globals, which handlers need. */
#include "cli/interrupt.h"

#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static dk_cancel *token;
static volatile sig_atomic_t signals;

static void on_signal(int number)
{
    (void)number;
    if (signals > 0) {
        _exit(dk_status_exit_code(DK_CANCELLED));
    }
    signals = 1;
    dk_cancel_request(token);
}

dk_cancel *dk_interrupt_begin(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    if (token == NULL) {
        token = dk_cancel_create();
        struct sigaction action = {.sa_handler = on_signal};
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            struct sigaction old;
            /* What the parent ignores (nohup, a background job) stays ignored. */
            if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
                sigaction(numbers[i], &action, NULL);
            }
        }
    }
    return token;
}

bool dk_interrupted(void)
{
    return signals > 0;
}

dk_status dk_interrupt_check(dk_error *err)
{
    return dk_interrupted() ? dk_fail(err, DK_CANCELLED, "stopped on request") : DK_OK;
}
