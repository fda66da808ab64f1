/* Which work is worth sharing one pass through the transformer. */
#include <jansson.h>
#include <string.h>

#include "pipeline/pipeline.h"
#include "pipeline/request_parameters.h"

int dk_jobs_pass_items(const dk_device *device, int64_t tokens)
{
    /* Measured on two AVX2 threads with the embedded model, ms of a step of one request, its
       two passes alone, together, and with three more requests (8 passes): 36
       tokens 8.8, 7.4, 5.9; 64 tokens 15.2, 12.8, 10.8; 144 tokens 25.5, 23.2, 33.9; 320
       tokens 55.8, 49.8, 60.7. Layers of 1536 columns gain nothing measurable at any size. */
    enum { PAYING_ROWS = 640 };
    if (tokens <= device->direct_rows) {
        return 1;
    }
    int64_t items = PAYING_ROWS / tokens;
    return items < 1 ? 1 : items < DK_WAN_DIT_MOST_ITEMS ? (int)items : DK_WAN_DIT_MOST_ITEMS;
}

static int64_t tokens_of(const dk_job *job)
{
    const dk_wan_dit_config *dit = dk_wan_dit_get_config(job->pipeline->transformer);
    return job->latent_frames / dit->patch[0] * (job->latent_height / dit->patch[1]) *
           (job->latent_width / dit->patch[2]);
}

int dk_request_most_together(const dk_pipeline *pipeline, const dk_device *device,
                             const dk_request *request)
{
    dk_job job = {.pipeline = pipeline, .request = *request};
    bool own_files = request->initial_latents != NULL || request->dump_tensors != NULL ||
                     request->image_path != NULL;
    if (own_files || dk_job_check(&job, NULL) != DK_OK) {
        return 1;
    }
    int passes = job.guided ? 2 : 1;
    int most = dk_jobs_pass_items(device, tokens_of(&job)) / passes;
    return most < 1 ? 1 : most < DK_JOBS_TOGETHER ? most : DK_JOBS_TOGETHER;
}

bool dk_requests_are_alike(const dk_request *a, const dk_request *b)
{
    static const char *const own[] = {"prompt", "negative_prompt", "seed"};
    bool alike = true;
    for (int i = 0; i < dk_request_parameters.count && alike; i++) {
        const dk_parameter *parameter = &dk_request_parameters.parameters[i];
        bool differs = false;
        for (size_t k = 0; k < sizeof own / sizeof *own; k++) {
            differs = differs || strcmp(parameter->name, own[k]) == 0;
        }
        if (!differs) {
            json_t *of_a = dk_parameter_get_json(parameter, a);
            json_t *of_b = dk_parameter_get_json(parameter, b);
            alike = json_equal(of_a, of_b) == 1;
            json_decref(of_a);
            json_decref(of_b);
        }
    }
    return alike;
}
