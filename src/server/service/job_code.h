/* Why a job failed, as a short word in the store and in the API: a status, "out_of_time". */
#ifndef DK_SERVER_SERVICE_JOB_CODE_H
#define DK_SERVER_SERVICE_JOB_CODE_H

#include "base/error.h"

enum { DK_JOB_CODE_BYTES = 64 };

void dk_job_code(char code[DK_JOB_CODE_BYTES], dk_status status);
dk_status dk_job_code_status(const char *code); /* DK_INTERNAL: NULL, or no such word */

#endif
