/* Checkpoints. Header and buffers are made when an output begins, so that the step loop only
   copies and writes. */
#include "pipeline/checkpoint.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "pipeline/job.h"
#include "weights/safetensors.h"

enum { FORMAT = 1, MOST_STATES = 8 };

/* The tensor "position"; the sum is of everything behind it. */
typedef struct position {
    int32_t format, output, steps, warm, used_order;
    uint32_t sum;
} position;
enum { POSITION_WORDS = sizeof(position) / sizeof(int32_t) };

struct dk_checkpoint {
    char *path, *temporary;
    double every_ms, written_ms;
    bool warned;
    int64_t count; /* elements of a latent */
    int states;
    position at; /* where to go on; steps 0 of output 0: nothing was read */
    /* The file's content but for the header: position, finished latents, the latent, states. */
    char *body;
    char *header; /* for the output at work */
    size_t header_bytes;
};

static float *floats(const dk_checkpoint *c)
{
    return (float *)(void *)(c->body + sizeof(position));
}

/* The latent at work follows the finished ones, its states follow it. */
static float *latent_of(const dk_checkpoint *c, int output)
{
    return floats(c) + output * c->count;
}

static size_t body_bytes(const dk_checkpoint *c, int output)
{
    return sizeof(position) + (size_t)((output + 1 + c->states) * c->count) * sizeof(float);
}

/* A sum that sees damage, not malice: FNV-1a over 32-bit words, folded. */
static uint32_t sum_of(const dk_checkpoint *c, const position *at)
{
    uint64_t sum = 14695981039346656037u;
    const char *bytes = c->body + sizeof(position);
    size_t words = (body_bytes(c, at->output) - sizeof(position)) / sizeof(uint32_t);
    const int32_t facts[] = {at->output, at->steps, at->warm, at->used_order};
    for (int i = 0; i < 4; i++) {
        sum = (sum ^ (uint32_t)facts[i]) * 1099511628211u;
    }
    for (size_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, bytes + i * sizeof word, sizeof word);
        sum = (sum ^ word) * 1099511628211u;
    }
    return (uint32_t)(sum ^ sum >> 32);
}

/* The tensors of a file about `output`, in order; returns how many. */
static int layout(const dk_checkpoint *c, int output, dk_safetensors_entry entries[],
                  char names[MOST_STATES][24])
{
    int n = 0;
    entries[n++] =
        (dk_safetensors_entry){"position", DK_TENSOR(c->body, DK_I32, (int64_t)POSITION_WORDS)};
    if (output > 0) {
        entries[n++] = (dk_safetensors_entry){
            "finished", DK_TENSOR(floats(c), DK_F32, (int64_t)output, c->count)};
    }
    entries[n++] =
        (dk_safetensors_entry){"latent", DK_TENSOR(latent_of(c, output), DK_F32, c->count)};
    for (int i = 0; i < c->states; i++) {
        snprintf(names[i], sizeof names[i], "state.%d", i);
        entries[n++] = (dk_safetensors_entry){
            names[i], DK_TENSOR(latent_of(c, output + 1 + i), DK_F32, c->count)};
    }
    return n;
}

static dk_status check_position(const dk_checkpoint *c, const dk_job *job, const position *at,
                                dk_error *err)
{
    dk_sampler_memory memory = {at->warm, at->used_order};
    bool inside = at->output >= 0 && at->output < job->request.num_outputs_per_prompt &&
                  at->steps >= 0 && at->steps <= dk_sampler_steps(job->sampler);
    if (at->format != FORMAT) {
        return dk_fail(err, DK_FORMAT, "%s: checkpoint of format %d, this version reads %d",
                       c->path, (int)at->format, FORMAT);
    }
    bool known = dk_sampler_recall(job->sampler, memory);
    dk_sampler_reset(job->sampler);
    return inside && known ? DK_OK
                           : dk_fail(err, DK_FORMAT, "%s: a damaged checkpoint", c->path);
}

static dk_status check_identity(const dk_checkpoint *c, const dk_job *job,
                                const dk_safetensors *file, dk_error *err)
{
    const char *identity = dk_safetensors_metadata(file, "identity");
    if (identity == NULL || strcmp(identity, job->checkpoint.identity) != 0) {
        return dk_fail(err, DK_MISMATCH,
                       "%s: the checkpoint of another request, model or version", c->path);
    }
    return DK_OK;
}

/* Copies the tensors into the body; nothing of it counts before this returns DK_OK. */
static dk_status copy_tensors(dk_checkpoint *c, const dk_safetensors *file, int output,
                              dk_error *err)
{
    dk_safetensors_entry entries[MOST_STATES + 3];
    char names[MOST_STATES][24];
    int count = layout(c, output, entries, names);
    for (int i = 0; i < count; i++) {
        const dk_tensor *to = &entries[i].tensor;
        const dk_weight *from = dk_safetensors_find(file, entries[i].name);
        if (from == NULL || from->tensor.dtype != to->dtype ||
            !dk_tensor_has_shape(&from->tensor, to->rank, to->shape)) {
            return dk_fail(err, DK_FORMAT, "%s: tensor '%s' is missing or has another shape",
                           c->path, entries[i].name);
        }
        memcpy(to->data, from->tensor.data, dk_tensor_bytes(to));
    }
    return DK_OK;
}

static dk_status read_file(dk_checkpoint *c, dk_job *job, dk_error *err)
{
    dk_safetensors *file = NULL;
    position at;
    DK_TRY(dk_safetensors_open(&file, c->path, err));
    dk_status status = check_identity(c, job, file, err);
    const dk_weight *stored = dk_safetensors_find(file, "position");
    if (status == DK_OK && (stored == NULL || dk_tensor_bytes(&stored->tensor) != sizeof at)) {
        status = dk_fail(err, DK_FORMAT, "%s: no checkpoint", c->path);
    }
    if (status == DK_OK) {
        memcpy(&at, stored->tensor.data, sizeof at);
        status = check_position(c, job, &at, err);
    }
    if (status == DK_OK) {
        status = copy_tensors(c, file, at.output, err);
    }
    if (status == DK_OK && at.sum != sum_of(c, &at)) {
        status = dk_fail(err, DK_FORMAT, "%s: a damaged checkpoint", c->path);
    }
    if (status == DK_OK) {
        c->at = at;
    }
    dk_safetensors_close(&file);
    return status;
}

dk_status dk_checkpoint_open(dk_checkpoint **out, dk_job *job, dk_error *err)
{
    dk_error why = {0};
    void *body;
    dk_checkpoint *c = dk_alloc(sizeof *c);
    c->path = dk_strdup(job->checkpoint.path);
    c->temporary = dk_file_temporary(c->path);
    c->every_ms = job->checkpoint.every_s * 1e3;
    c->written_ms = dk_now_ms();
    c->count = dk_job_latent_count(job);
    c->states = dk_sampler_state_tensors(job->sampler);
    assert(c->states <= MOST_STATES);
    size_t bytes = body_bytes(c, job->request.num_outputs_per_prompt - 1);
    dk_status status = dk_try_alloc(&body, bytes, "a checkpoint", err);
    if (status != DK_OK) {
        dk_checkpoint_close(&c);
        return status;
    }
    c->body = body;
    if (dk_path_exists(c->path) && read_file(c, job, &why) != DK_OK) {
        dk_job_warn(job, "%s: begins anew", why.message);
    }
    *out = c;
    return DK_OK;
}

void dk_checkpoint_close(dk_checkpoint **checkpoint)
{
    if (*checkpoint != NULL) {
        dk_checkpoint *c = *checkpoint;
        dk_free(c->path);
        dk_free(c->temporary);
        dk_free(c->body);
        dk_free(c->header);
        dk_free(c);
        *checkpoint = NULL;
    }
}

/* The header of a file about job->output. An error here is a tensor's name, which are fixed. */
static void make_header(dk_checkpoint *c, const dk_job *job)
{
    dk_safetensors_entry entries[MOST_STATES + 3];
    char names[MOST_STATES][24];
    int count = layout(c, job->output, entries, names);
    json_t *metadata =
        json_pack("{s:s, s:s}", "identity", job->checkpoint.identity, "darkroom", DK_VERSION);
    dk_free(c->header);
    c->header = NULL;
    if (dk_safetensors_header(&c->header, &c->header_bytes, entries, count, metadata, NULL) !=
        DK_OK) {
        c->header = NULL;
    }
    json_decref(metadata);
}

int dk_checkpoint_begin(dk_checkpoint *c, dk_job *job)
{
    int all = dk_sampler_steps(job->sampler), made = 0;
    make_header(c, job);
    if (job->output <= c->at.output) {
        made = job->output < c->at.output ? all : c->at.steps;
    }
    if (made == all) {
        memcpy(job->latent, latent_of(c, job->output), (size_t)c->count * sizeof(float));
    }
    return made;
}

void dk_checkpoint_restore(const dk_checkpoint *c, dk_job *job, float *latent,
                           float *const *state)
{
    dk_device *device = job->nn->device;
    size_t bytes = (size_t)c->count * sizeof(float);
    bool known =
        dk_sampler_recall(job->sampler, (dk_sampler_memory){c->at.warm, c->at.used_order});
    assert(known);
    (void)known;
    dk_device_write(device, latent, latent_of(c, job->output), bytes);
    for (int i = 0; i < c->states; i++) {
        dk_device_write(device, state[i], latent_of(c, job->output + 1 + i), bytes);
    }
}

static void write_file(dk_checkpoint *c, dk_job *job)
{
    dk_error why = {0};
    const dk_file_piece pieces[] = {{c->header, c->header_bytes},
                                    {c->body, body_bytes(c, job->output)}};
    if (dk_file_write_pieces(c->path, c->temporary, pieces, 2, &why) != DK_OK && !c->warned) {
        dk_job_warn(job, "no checkpoint: %s", why.message);
        c->warned = true;
    }
}

dk_status dk_checkpoint_step(dk_checkpoint *c, dk_job *job, int steps, const float *latent,
                             float *const *state, dk_error *err)
{
    dk_device *device = job->nn->device;
    size_t bytes = (size_t)c->count * sizeof(float);
    if (c->header == NULL || dk_now_ms() - c->written_ms < c->every_ms) {
        return DK_OK;
    }
    dk_sampler_memory memory = dk_sampler_remember(job->sampler);
    position at = {.format = FORMAT,
                   .output = job->output,
                   .steps = steps,
                   .warm = memory.warm,
                   .used_order = memory.used_order};
    dk_device_read(device, latent_of(c, job->output), latent, bytes);
    for (int i = 0; i < c->states; i++) {
        dk_device_read(device, latent_of(c, job->output + 1 + i), state[i], bytes);
    }
    DK_TRY(dk_device_sync(device, err));
    at.sum = sum_of(c, &at);
    memcpy(c->body, &at, sizeof at);
    write_file(c, job);
    c->written_ms = dk_now_ms();
    return DK_OK;
}

void dk_checkpoint_end(dk_checkpoint *c, const dk_job *job)
{
    memcpy(latent_of(c, job->output), job->latent, (size_t)c->count * sizeof(float));
}
