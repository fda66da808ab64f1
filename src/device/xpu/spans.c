/* Events' times become spans of the trace.

   A device has a clock of its own, whose difference to the host's is found by a probe: an
   operation that the host sees begin and end lies, in the host's clock, between the two
   moments that the host read. Several probes narrow the difference down. */
#include "device/xpu/spans.h"

#include <stdio.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "device/xpu/xpu.h"

enum { MOST_WAITING = 8192, PROBES = 4, PROBE_BYTES = 64 };
static const int64_t PROBE_EVERY_NS =
    1000000000; /* clocks drift by 50 us in that time at most */

static bool is_over(DPCTLSyclEventRef event)
{
    return DPCTLEvent_GetCommandExecutionStatus(event) == DPCTL_COMPLETE;
}

/* Narrows [low, high], in which the difference of the clocks is. */
static void probe(dk_xpu *xpu, int64_t *low, int64_t *high)
{
    int64_t before = dk_now_ns();
    DPCTLSyclEventRef event = DPCTLQueue_Memset(xpu->queue, xpu->spans.probe, 0, PROBE_BYTES);
    if (event == NULL) {
        return;
    }
    DPCTLEvent_Wait(event);
    int64_t after = dk_now_ns();
    int64_t least = before - (int64_t)DPCTLEvent_GetProfilingInfoStart(event);
    int64_t most = after - (int64_t)DPCTLEvent_GetProfilingInfoEnd(event);
    *low = least > *low ? least : *low;
    *high = most < *high ? most : *high;
    DPCTLEvent_Delete(event);
}

static void read_clock(dk_xpu *xpu)
{
    dk_xpu_spans *spans = &xpu->spans;
    int64_t low = INT64_MIN / 2, high = INT64_MAX / 2;
    if (spans->probe != NULL && dk_now_ns() - spans->read_ns < PROBE_EVERY_NS) {
        return;
    }
    if (spans->probe == NULL &&
        dk_xpu_alloc(xpu, &spans->probe, PROBE_BYTES, "a probe of the clock", NULL) != DK_OK) {
        return;
    }
    for (int i = 0; i < PROBES; i++) {
        probe(xpu, &low, &high);
    }
    spans->offset_ns = low + (high - low) / 2;
    spans->read_ns = dk_now_ns();
    dk_log_debug(xpu->log, "the device's clock is known to %.1f us",
                 (double)(high - low) * 0.5e-3);
}

static const char *text_or_null(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}

/* A queue's spans follow one another: what another reading of the clock, or its rounding, lays
   over the one before is cut. */
static void tell(dk_xpu *xpu, const dk_xpu_span *span)
{
    dk_xpu_spans *spans = &xpu->spans;
    const char *const lanes[] = {[DK_XPU_LANE_COMPUTE] = xpu->head.trace_lane,
                                 [DK_XPU_LANE_HOST] = DK_TRACE_HOST,
                                 [DK_XPU_LANE_TRANSFER] = DK_TRACE_TRANSFER};
    int64_t *last =
        span->lane == DK_XPU_LANE_TRANSFER ? &spans->transfer_end : &spans->compute_end;
    int64_t begin = (int64_t)DPCTLEvent_GetProfilingInfoStart(span->event) + spans->offset_ns;
    int64_t end = (int64_t)DPCTLEvent_GetProfilingInfoEnd(span->event) + spans->offset_ns;
    begin = begin > *last ? begin : *last;
    end = end > begin ? end : begin;
    *last = end;
    dk_trace_add(xpu->head.trace, &(dk_trace_span){.lane = lanes[span->lane],
                                                   .name = span->name,
                                                   .begin_ns = begin,
                                                   .end_ns = end,
                                                   .bytes = (int64_t)span->bytes,
                                                   .operation = span->operation,
                                                   .detail = text_or_null(span->detail),
                                                   .waits_for = text_or_null(span->awaited)});
}

/* Those that are over, in their order; the rest waits on. */
static void tell_finished(dk_xpu *xpu)
{
    dk_xpu_spans *spans = &xpu->spans;
    int kept = 0;
    for (int i = 0; i < spans->count; i++) {
        dk_xpu_span *span = &spans->waiting[i];
        if (is_over(span->event)) {
            tell(xpu, span);
            DPCTLEvent_Delete(span->event);
        } else {
            spans->waiting[kept++] = *span;
        }
    }
    spans->count = kept;
}

void dk_xpu_span_note(dk_xpu *xpu, dk_xpu_lane lane, const char *name, const char *detail,
                      DPCTLSyclEventRef event, size_t bytes)
{
    dk_xpu_spans *spans = &xpu->spans;
    if (xpu->head.trace == NULL || event == NULL) {
        return;
    }
    if (spans->count == MOST_WAITING) {
        DPCTLQueue_Wait(xpu->transfer);
        DPCTLQueue_Wait(xpu->queue);
        dk_xpu_spans_tell(xpu);
    }
    if (spans->count == spans->room) {
        spans->room = spans->room > 0 ? 2 * spans->room : 512;
        spans->waiting =
            dk_realloc(spans->waiting, (size_t)spans->room * sizeof *spans->waiting);
    }
    dk_xpu_span *span = &spans->waiting[spans->count++];
    *span = (dk_xpu_span){.event = DPCTLEvent_Copy(event),
                          .lane = lane,
                          .operation = xpu->head.operation,
                          .bytes = bytes};
    snprintf(span->name, sizeof span->name, "%s", name);
    snprintf(span->detail, sizeof span->detail, "%s", detail != NULL ? detail : "");
    if (lane == DK_XPU_LANE_COMPUTE) {
        snprintf(span->awaited, sizeof span->awaited, "%s", spans->awaited);
        spans->awaited[0] = '\0';
    }
}

void dk_xpu_span_awaits(dk_xpu *xpu, const char *name)
{
    if (xpu->head.trace != NULL) {
        snprintf(xpu->spans.awaited, sizeof xpu->spans.awaited, "%s", name);
    }
}

void dk_xpu_spans_tell(dk_xpu *xpu)
{
    if (xpu->head.trace != NULL && xpu->spans.count > 0 && !xpu->lost) {
        read_clock(xpu);
        tell_finished(xpu);
    }
}

void dk_xpu_spans_release(dk_xpu *xpu)
{
    dk_xpu_spans_tell(xpu);
    for (int i = 0; i < xpu->spans.count; i++) {
        DPCTLEvent_Delete(xpu->spans.waiting[i].event);
    }
    dk_free(xpu->spans.waiting);
    dk_xpu_free(xpu, xpu->spans.probe);
    xpu->spans = (dk_xpu_spans){0};
}
