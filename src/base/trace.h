/* A trace: what ran when, as spans in lanes, in a file of Chrome's trace events (JSON), which
   Perfetto and chrome://tracing show and tools/trace_overlap adds up.

   The file is an array with an event a line. It grows while the program works, in whole events:
   after a crash only its closing bracket is missing, which readers of the format do without.
   Every process writes a file of its own; their clock is one, so that files of one host can be
   laid side by side. */
#ifndef DK_BASE_TRACE_H
#define DK_BASE_TRACE_H

#include <stdint.h>

#include "base/error.h"
#include "base/log.h"

typedef struct dk_trace dk_trace;

/* Lanes that there are; others may be named too. Spans of a lane follow one another or lie
   inside one another. */
#define DK_TRACE_STAGES        "stages"   /* stages, and steps inside them */
#define DK_TRACE_COMPUTE       "compute"  /* operations of the device */
#define DK_TRACE_TRANSFER      "transfer" /* copies beside them: weights that come and go */
#define DK_TRACE_COMMUNICATION "communication"            /* between ranks */
#define DK_TRACE_WEIGHTS       "communication of weights" /* beside the former, by a thread */
#define DK_TRACE_TEXT          "text encoder" /* operations of a device for prompts alone */
#define DK_TRACE_HOST          "host copies"  /* copies that the host waits for */

typedef struct dk_trace_options {
    const char *path;    /* see dk_trace_path_check */
    const char *process; /* what the process is called: "tiny-wan on cpu" */
    int rank;            /* which one of several, from 0: the file's pid */
    uint64_t most_bytes; /* of the file; spans after it are left out; 0: 1 GiB */
    const dk_log *log;   /* borrowed; may be NULL; told when the file cannot grow any more */
} dk_trace_options;

/* Makes the file, anew where there is one. Owned. */
DK_MUST_USE dk_status dk_trace_open(dk_trace **out, const dk_trace_options *options,
                                    dk_error *err);
void dk_trace_close(dk_trace **trace);

/* Whether a file can be written there: not "-", no folder or other thing that is no file. Makes
   nothing. */
DK_MUST_USE dk_status dk_trace_path_check(const char *path, dk_error *err);
/* "trace.json" of rank 2 as "trace-2.json"; owned. */
char *dk_trace_path_of_rank(const char *path, int rank);

/* Something that took from begin_ns to end_ns, of dk_now_ns. Texts are copied; long ones are
   cut. */
typedef struct dk_trace_span {
    const char *lane; /* DK_TRACE_… */
    const char *name;
    int64_t begin_ns, end_ns;
    /* Told where they are not 0 or NULL. */
    int64_t bytes, rows;
    double flops;
    const char *group;     /* of communication: "sp" */
    const char *operation; /* of the device, that it is a part of: "linear" */
    const char *detail;    /* how it was computed */
    const char *waits_for; /* the span of another lane that it had to wait for, by name */
} dk_trace_span;

/* From any thread, in any order; trace may be NULL: nothing happens. */
void dk_trace_add(dk_trace *trace, const dk_trace_span *span);

#endif
