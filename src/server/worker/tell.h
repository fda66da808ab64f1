/* What a worker tells the scheduler. Every function may be called from any thread; what cannot
   be sent is dropped: the reading side notices that the scheduler is gone. */
#ifndef DK_SERVER_WORKER_TELL_H
#define DK_SERVER_WORKER_TELL_H

#include "darkroom/darkroom.h"
#include "server/wire/pipe.h"

void dk_tell_ready(dk_pipe *pipe, const dk_engine *engine, const char *model);
/* To a relay: where the scheduler is. */
void dk_tell_introduction(dk_pipe *pipe, const char *text);
void dk_tell_failed(dk_pipe *pipe, const dk_error *error);
/* engine may be NULL: still loading. */
void dk_tell_alive(dk_pipe *pipe, const dk_engine *engine);
void dk_tell_event(dk_pipe *pipe, const char *task, const dk_event *event);
void dk_tell_result(dk_pipe *pipe, const char *task, const dk_result *result);
void dk_tell_error(dk_pipe *pipe, const char *task, const dk_error *error);
void dk_tell_idle(dk_pipe *pipe);
void dk_tell_plan(dk_pipe *pipe, const json_t *call, const dk_request *request, bool joins,
                  const dk_plan *plan);
void dk_tell_no_plan(dk_pipe *pipe, const json_t *call, const dk_error *error);

#endif
