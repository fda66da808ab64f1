/* What every cmocka test program starts with. */
#ifndef DK_TESTS_TEST_H
#define DK_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"

/* Fails with the error's message. */
#define assert_ok(expr, err)                                                                   \
    do {                                                                                       \
        dk_status status_ = (expr);                                                            \
        if (status_ != DK_OK) {                                                                \
            fail_msg("%s: %s (%s)", #expr, dk_status_text(status_), (err).message);            \
        }                                                                                      \
    } while (0)

#endif
