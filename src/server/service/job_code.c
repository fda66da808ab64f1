/* Words for statuses. */
#include "server/service/job_code.h"

#include <stdio.h>
#include <string.h>

void dk_job_code(char code[DK_JOB_CODE_BYTES], dk_status status)
{
    snprintf(code, DK_JOB_CODE_BYTES, "%s", dk_status_text(status));
    for (char *c = code; *c != '\0'; c++) {
        *c = *c == ' ' ? '_' : *c;
    }
}

dk_status dk_job_code_status(const char *code)
{
    for (int status = 1; code != NULL && status < DK_STATUS_COUNT; status++) {
        char text[DK_JOB_CODE_BYTES];
        dk_job_code(text, (dk_status)status);
        if (strcmp(text, code) == 0) {
            return (dk_status)status;
        }
    }
    return DK_INTERNAL;
}
