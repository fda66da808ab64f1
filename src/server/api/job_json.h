/* A stored job as the API shows it. */
#ifndef DK_SERVER_API_JOB_JSON_H
#define DK_SERVER_API_JOB_JSON_H

#include <jansson.h>

#include "base/string.h"
#include "server/jobs/jobs.h"
#include "server/service/watch.h"

/* progress: NULL when the job is not in flight. Owned. */
json_t *dk_job_json(const dk_job_record *record, const char *model,
                    const dk_progress_note *progress);
/* Puts how it stands over an object of dk_job_json. */
void dk_job_json_update(json_t *job, const dk_progress_note *progress);

/* "/v1/videos/ID/content?index=0" into text. */
void dk_job_content_url(dk_string *text, const dk_job_record *record, int index);
/* Media type of a file name. */
const char *dk_media_type_of(const char *name);

#endif
