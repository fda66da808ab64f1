/* What the Wan transformer's passes share: the rotary tables of a latent's geometry, and the
   keys and values of a prompt. */
#include <math.h>

#include "base/alloc.h"
#include "models/wan/dit_model.h"
#include "nn/block.h"
#include "nn/parallel.h"

/* Rotary angles of one token: the head's pairs are split over time, rows and columns, the time
   part taking what 6 does not divide. Tables are computed in float64. */
static void fill_rope_row(const dk_wan_dit_config *c, float *cos_row, float *sin_row,
                          const int64_t position[3])
{
    int64_t side = 2 * (c->head_dim / 6);
    const int64_t dims[3] = {c->head_dim - 2 * side, side, side};
    int64_t pair = 0;
    for (int axis = 0; axis < 3; axis++) {
        for (int64_t i = 0; i < dims[axis] / 2; i++, pair++) {
            double frequency = 1.0 / pow(10000.0, (double)(2 * i) / (double)dims[axis]);
            double angle = (double)position[axis] * frequency;
            cos_row[pair] = (float)cos(angle);
            sin_row[pair] = (float)sin(angle);
        }
    }
}

static dk_status fill_rope(dk_nn *nn, const dk_wan_dit_config *c, const int64_t grid[3],
                           const dk_tensor *cos_table, const dk_tensor *sin_table,
                           dk_error *err)
{
    if (nn->device->dry) {
        return DK_OK;
    }
    int64_t half = c->head_dim / 2;
    size_t bytes = dk_tensor_bytes(cos_table);
    void *memory;
    DK_TRY(dk_try_alloc(&memory, 2 * bytes, "rotary tables", err));
    float *cos_values = memory, *sin_values = cos_values + dk_tensor_count(cos_table);
    int64_t token = 0;
    for (int64_t t = 0; t < grid[0]; t++) {
        for (int64_t y = 0; y < grid[1]; y++) {
            for (int64_t x = 0; x < grid[2]; x++, token++) {
                fill_rope_row(c, &cos_values[token * half], &sin_values[token * half],
                              (int64_t[]){t, y, x});
            }
        }
    }
    dk_device_write(nn->device, cos_table->data, cos_values, bytes);
    dk_device_write(nn->device, sin_table->data, sin_values, bytes);
    dk_free(memory);
    return DK_OK;
}

dk_status dk_wan_dit_grid_init(dk_nn *nn, const dk_wan_dit *dit, dk_wan_dit_grid *out,
                               int64_t frames, int64_t height, int64_t width, dk_error *err)
{
    const dk_wan_dit_config *c = &dit->config;
    const int64_t grid[3] = {frames / c->patch[0], height / c->patch[1], width / c->patch[2]};
    for (int axis = 0; axis < 3; axis++) {
        if (grid[axis] < 1 || grid[axis] > c->rope_positions) {
            return dk_fail(err, DK_INVALID,
                           "a latent of %lld x %lld x %lld has %lld patches along one axis, "
                           "accepted are 1 to %lld",
                           (long long)frames, (long long)height, (long long)width,
                           (long long)grid[axis], (long long)c->rope_positions);
        }
    }
    int64_t tokens = grid[0] * grid[1] * grid[2];
    dk_tensor cos_table = dk_nn_keep(nn, DK_F32, tokens, c->head_dim / 2);
    dk_tensor sin_table = dk_nn_keep(nn, DK_F32, tokens, c->head_dim / 2);
    DK_TRY(fill_rope(nn, c, grid, &cos_table, &sin_table, err));
    dk_nn_part part = dk_nn_sequence_part(nn, tokens);
    int64_t skipped = part.begin * (c->head_dim / 2);
    *out = (dk_wan_dit_grid){
        .frames = frames,
        .height = height,
        .width = width,
        .tokens = tokens,
        .first = part.begin,
        .rows = part.count,
        .rope = {(float *)cos_table.data + skipped, (float *)sin_table.data + skipped}};
    return DK_OK;
}

/* Text embeddings projected to the model's width, followed by the row that stands for all
   padding, which is what zeros project to. */
static dk_tensor project_text(dk_nn *nn, const dk_wan_dit *dit, const dk_tensor *embeds,
                              bool padded)
{
    int64_t rows = embeds->shape[0], dim = dk_wan_dit_dim(dit), width = dit->config.text_dim;
    dk_tensor padded_embeds = dk_nn_temp(nn, DK_F32, rows + (padded ? 1 : 0), width);
    dk_tensor hidden = dk_nn_temp(nn, nn->type, padded_embeds.shape[0], dim);
    dk_tensor text = dk_nn_temp(nn, nn->type, padded_embeds.shape[0], dim);
    dk_tensor head = padded_embeds;
    head.shape[0] = rows;
    dk_nn_map(nn, &head, embeds, DK_ACT_NONE);
    if (padded) {
        dk_tensor zeros =
            DK_TENSOR((float *)padded_embeds.data + rows * width, DK_F32, 1, width);
        dk_device_zero(nn->device, zeros.data, dk_tensor_bytes(&zeros));
    }
    dk_nn_linear_forward(nn, &dit->text_1, &hidden, &padded_embeds,
                         &(dk_nn_epilogue){.activation = DK_ACT_GELU_TANH});
    dk_nn_linear_forward(nn, &dit->text_2, &text, &hidden, NULL);
    return text;
}

dk_status dk_wan_dit_text_init(dk_nn *nn, const dk_wan_dit *dit, dk_wan_dit_text *out,
                               const dk_tensor *embeds, int64_t padding_rows, dk_error *err)
{
    const dk_wan_dit_config *c = &dit->config;
    size_t mark = dk_nn_mark(nn);
    dk_tensor text = project_text(nn, dit, embeds, padding_rows > 0);
    int64_t rows = text.shape[0], dim = dit->heads * c->head_dim;
    *out = (dk_wan_dit_text){.k = dk_alloc((size_t)c->layers * sizeof *out->k),
                             .v = dk_alloc((size_t)c->layers * sizeof *out->v)};
    for (int64_t i = 0; i < c->layers; i++) {
        const dk_wan_attention *attention = &dit->blocks[i].attn2;
        out->k[i] = dk_nn_keep(nn, nn->type, rows, dim);
        out->v[i] = dk_nn_keep(nn, nn->type, rows, dim);
        const dk_nn_linear_call kv[] = {{&attention->to_k, &out->k[i], NULL},
                                        {&attention->to_v, &out->v[i], NULL}};
        dk_nn_weights_begin(nn, &dit->bound, (int)i);
        dk_nn_linear_group(nn, &text, kv, 2);
        dk_nn_weights_end(nn, &dit->bound, (int)i);
        const dk_nn_head_norm norm = dk_wan_dit_norm(dit, attention->norm_k);
        dk_nn_norm_rope(nn, &out->k[i], (int)dit->heads, &norm, NULL);
    }
    if (padding_rows > 0) {
        dk_tensor bias = dk_nn_keep(nn, DK_F32, 1, rows);
        float last = logf((float)padding_rows);
        dk_device_zero(nn->device, bias.data, dk_tensor_bytes(&bias));
        dk_device_write(nn->device, (float *)bias.data + rows - 1, &last, sizeof last);
        out->bias = (dk_nn_bias){.values = bias.data, .k = 1};
    }
    dk_nn_unwind(nn, mark);
    dk_status status = dk_nn_check(nn, err);
    if (status != DK_OK) {
        dk_wan_dit_text_release(out);
    }
    return status;
}

void dk_wan_dit_text_release(dk_wan_dit_text *text)
{
    dk_free(text->k);
    dk_free(text->v);
    *text = (dk_wan_dit_text){0};
}
