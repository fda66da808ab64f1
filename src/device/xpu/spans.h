/* What the two queues did when, for a trace: the events of what was enqueued, read when they
   are over, and told in the host's clock. */
#ifndef DK_DEVICE_XPU_SPANS_H
#define DK_DEVICE_XPU_SPANS_H

#include <dpctl_sycl_event_interface.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dk_xpu dk_xpu;

enum { DK_XPU_SPAN_NAME = 64 };

/* Lanes; the first two are of the compute queue. */
typedef enum dk_xpu_lane {
    DK_XPU_LANE_COMPUTE,
    DK_XPU_LANE_HOST, /* copies that the host waits for */
    DK_XPU_LANE_TRANSFER,
} dk_xpu_lane;

/* Something that was enqueued. */
typedef struct dk_xpu_span {
    DPCTLSyclEventRef event; /* owned */
    dk_xpu_lane lane;
    const char *operation; /* NULL: none of the device's */
    char name[DK_XPU_SPAN_NAME], detail[DK_XPU_SPAN_NAME], awaited[DK_XPU_SPAN_NAME];
    size_t bytes;
} dk_xpu_span;

typedef struct dk_xpu_spans {
    dk_xpu_span *waiting; /* [count]: not told so far */
    int count, room;
    char awaited[DK_XPU_SPAN_NAME]; /* copy that the next operation waits for; "": none */
    void *probe;       /* owned device memory; NULL: the clock was not read so far */
    int64_t offset_ns; /* host's clock - device's */
    int64_t read_ns;   /* when that was found */
    int64_t compute_end, transfer_end; /* of each queue's last span, host's clock */
} dk_xpu_spans;

/* Notes what was enqueued. name, detail (NULL: none): copied. event: borrowed, of a queue that
   keeps times; NULL is fine. Nothing happens without a trace. */
void dk_xpu_span_note(dk_xpu *xpu, dk_xpu_lane lane, const char *name, const char *detail,
                      DPCTLSyclEventRef event, size_t bytes);

/* The next one noted of the compute queue comes after the copy of that name. */
void dk_xpu_span_awaits(dk_xpu *xpu, const char *name);

/* Tells the trace all that is over. Called when the compute queue is idle. */
void dk_xpu_spans_tell(dk_xpu *xpu);
/* The same, and forgets the rest; the queues are idle. */
void dk_xpu_spans_release(dk_xpu *xpu);

#endif
