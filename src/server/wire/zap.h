/* ZeroMQ's authentication protocol (ZAP, rfc.zeromq.org/spec/27): which CURVE public keys may
   come in. A thread answers the questions that libzmq asks inside a context. */
#ifndef DK_SERVER_WIRE_ZAP_H
#define DK_SERVER_WIRE_ZAP_H

#include "base/error.h"

typedef struct dk_zap dk_zap;

/* allowed: public keys in Z85, separated by spaces; copied. Owned. */
DK_MUST_USE dk_status dk_zap_start(dk_zap **out, void *context, const char *allowed,
                                   dk_error *err);
void dk_zap_stop(dk_zap **zap);

#endif
