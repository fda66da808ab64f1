/* The Wan transformer's forward pass. The residual stream is F32; what the matrix multiplies
   read and write has the activation type. */
#include "models/wan/dit.h"

#include <math.h>

#include "base/alloc.h"
#include "models/wan/dit_model.h"

dk_status dk_wan_dit_create(dk_wan_dit **out, const dk_wan_dit_config *config,
                            dk_weights *weights, const char *where, dk_error *err)
{
    dk_wan_dit *dit = dk_alloc(sizeof *dit);
    dit->config = *config;
    dit->weights = dk_weights_ref(weights);
    dit->blocks = dk_alloc((size_t)config->layers * sizeof *dit->blocks);
    dk_status status = dk_wan_dit_bind(dit, where, err);
    if (status != DK_OK) {
        dk_wan_dit_destroy(&dit);
        return status;
    }
    *out = dit;
    return DK_OK;
}

void dk_wan_dit_destroy(dk_wan_dit **dit)
{
    if (*dit != NULL) {
        dk_nn_quantized_release(&(*dit)->quantized);
        dk_bound_release(&(*dit)->bound);
        dk_weights_unref((*dit)->weights);
        dk_free((*dit)->blocks);
        dk_free(*dit);
        *dit = NULL;
    }
}

const dk_wan_dit_config *dk_wan_dit_get_config(const dk_wan_dit *dit)
{
    return &dit->config;
}

static int64_t model_dim(const dk_wan_dit *dit)
{
    return dit->config.heads * dit->config.head_dim;
}

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
    *out = (dk_wan_dit_grid){.frames = frames,
                             .height = height,
                             .width = width,
                             .tokens = tokens,
                             .rope = {cos_table.data, sin_table.data}};
    return DK_OK;
}

/* Text embeddings projected to the model's width, followed by the row that stands for all
   padding, which is what zeros project to. */
static dk_tensor project_text(dk_nn *nn, const dk_wan_dit *dit, const dk_tensor *embeds,
                              bool padded)
{
    int64_t rows = embeds->shape[0], dim = model_dim(dit), width = dit->config.text_dim;
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
    int64_t rows = text.shape[0], dim = model_dim(dit);
    *out = (dk_wan_dit_text){.k = dk_alloc((size_t)c->layers * sizeof *out->k),
                             .v = dk_alloc((size_t)c->layers * sizeof *out->v)};
    for (int64_t i = 0; i < c->layers; i++) {
        const dk_wan_attention *attention = &dit->blocks[i].attn2;
        out->k[i] = dk_nn_keep(nn, nn->type, rows, dim);
        out->v[i] = dk_nn_keep(nn, nn->type, rows, dim);
        const dk_nn_linear_call kv[] = {{&attention->to_k, &out->k[i], NULL},
                                        {&attention->to_v, &out->v[i], NULL}};
        dk_nn_linear_group(nn, &text, kv, 2);
        dk_nn_norm_rope(nn, &out->k[i], (int)c->heads, attention->norm_k, c->eps, NULL);
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

/* The axes of a latent split into patches: (channel, t, pt, y, py, x, px), with the strides of
   the latent and those of token rows whose inner order is either (c, pt, py, px), as the patch
   embedding wants, or (pt, py, px, c), as the output projection gives. */
static dk_permute_args patch_axes(const dk_wan_dit_config *c, const dk_wan_dit_grid *grid,
                                  bool channels_last, int64_t latent[7], int64_t token[7])
{
    int64_t ph = grid->height / c->patch[1], pw = grid->width / c->patch[2];
    int64_t patch = c->patch[0] * c->patch[1] * c->patch[2];
    int64_t row = c->in_channels * patch, plane = grid->height * grid->width;
    int64_t step = channels_last ? c->in_channels : 1;
    const int64_t shape[7] = {
        c->in_channels, grid->frames / c->patch[0], c->patch[0], ph, c->patch[1], pw,
        c->patch[2]};
    const int64_t in_latent[7] = {
        grid->frames * plane, c->patch[0] * plane, plane, c->patch[1] * grid->width,
        grid->width,          c->patch[2],         1};
    const int64_t in_token[7] = {channels_last ? 1 : patch,
                                 ph * pw * row,
                                 c->patch[1] * c->patch[2] * step,
                                 pw * row,
                                 c->patch[2] * step,
                                 row,
                                 step};
    dk_permute_args args = {.rank = 7};
    for (int i = 0; i < 7; i++) {
        args.shape[i] = shape[i];
        latent[i] = in_latent[i];
        token[i] = in_token[i];
    }
    return args;
}

static void patchify(dk_nn *nn, const dk_wan_dit *dit, const dk_wan_dit_grid *grid,
                     const dk_tensor *tokens, const dk_tensor *latent)
{
    dk_permute_args args;
    int64_t latent_stride[7], token_stride[7];
    args = patch_axes(&dit->config, grid, false, latent_stride, token_stride);
    for (int i = 0; i < args.rank; i++) {
        args.src_stride[i] = latent_stride[i];
        args.dst_stride[i] = token_stride[i];
    }
    args.src = latent->data;
    args.src_type = latent->dtype;
    args.dst = tokens->data;
    args.dst_type = tokens->dtype;
    dk_device_permute(nn->device, &args);
}

static void unpatchify(dk_nn *nn, const dk_wan_dit *dit, const dk_wan_dit_grid *grid,
                       const dk_tensor *latent, const dk_tensor *tokens)
{
    dk_permute_args args;
    int64_t latent_stride[7], token_stride[7];
    args = patch_axes(&dit->config, grid, true, latent_stride, token_stride);
    for (int i = 0; i < args.rank; i++) {
        args.src_stride[i] = token_stride[i];
        args.dst_stride[i] = latent_stride[i];
    }
    args.src = tokens->data;
    args.src_type = tokens->dtype;
    args.dst = latent->data;
    args.dst_type = latent->dtype;
    dk_device_permute(nn->device, &args);
}

/* temb: [1][dim], modulation: [1][6 dim], both F32 as published weights keep this part. */
static void embed_time(dk_nn *nn, const dk_wan_dit *dit, const dk_tensor *temb,
                       const dk_tensor *modulation, float timestep)
{
    size_t mark = dk_nn_mark(nn);
    dk_tensor wave = dk_nn_temp(nn, DK_F32, 1, dit->config.freq_dim);
    dk_tensor hidden = dk_nn_temp(nn, DK_F32, 1, model_dim(dit));
    dk_nn_timestep_embedding(nn, &wave, timestep);
    dk_nn_linear_forward(nn, &dit->time_1, &hidden, &wave,
                         &(dk_nn_epilogue){.activation = DK_ACT_SILU});
    dk_nn_linear_forward(nn, &dit->time_2, temb, &hidden, NULL);
    dk_nn_map(nn, &hidden, temb, DK_ACT_SILU);
    dk_nn_linear_forward(nn, &dit->time_proj, modulation, &hidden, NULL);
    dk_nn_unwind(nn, mark);
}

static void self_attention(dk_nn *nn, const dk_wan_dit *dit, const dk_wan_attention *attention,
                           const dk_wan_dit_grid *grid, const dk_tensor *x, const dk_tensor *h,
                           const float *gate)
{
    const dk_wan_dit_config *c = &dit->config;
    size_t mark = dk_nn_mark(nn);
    dk_tensor q = dk_nn_temp(nn, nn->type, grid->tokens, model_dim(dit));
    dk_tensor k = dk_nn_temp(nn, nn->type, grid->tokens, model_dim(dit));
    dk_tensor v = dk_nn_temp(nn, nn->type, grid->tokens, model_dim(dit));
    dk_tensor mixed = dk_nn_temp(nn, nn->type, grid->tokens, model_dim(dit));
    const dk_nn_linear_call qkv[] = {{&attention->to_q, &q, NULL},
                                     {&attention->to_k, &k, NULL},
                                     {&attention->to_v, &v, NULL}};
    dk_nn_linear_group(nn, h, qkv, 3);
    dk_nn_norm_rope(nn, &q, (int)c->heads, attention->norm_q, c->eps, &grid->rope);
    dk_nn_norm_rope(nn, &k, (int)c->heads, attention->norm_k, c->eps, &grid->rope);
    dk_nn_attention(nn, &mixed, &q, &k, &v, (int)c->heads, 1.0f / sqrtf((float)c->head_dim),
                    NULL);
    dk_nn_linear_forward(nn, &attention->to_out, x, &mixed,
                         &(dk_nn_epilogue){.gate = gate, .residual = true});
    dk_nn_unwind(nn, mark);
}

static void cross_attention(dk_nn *nn, const dk_wan_dit *dit, const dk_wan_attention *attention,
                            const dk_tensor *k, const dk_tensor *v, const dk_nn_bias *bias,
                            const dk_tensor *x, const dk_tensor *h)
{
    const dk_wan_dit_config *c = &dit->config;
    size_t mark = dk_nn_mark(nn);
    dk_tensor q = dk_nn_temp(nn, nn->type, x->shape[0], model_dim(dit));
    dk_tensor mixed = dk_nn_temp(nn, nn->type, x->shape[0], model_dim(dit));
    dk_nn_linear_forward(nn, &attention->to_q, &q, h, NULL);
    dk_nn_norm_rope(nn, &q, (int)c->heads, attention->norm_q, c->eps, NULL);
    dk_nn_attention(nn, &mixed, &q, k, v, (int)c->heads, 1.0f / sqrtf((float)c->head_dim),
                    bias);
    dk_nn_linear_forward(nn, &attention->to_out, x, &mixed,
                         &(dk_nn_epilogue){.residual = true});
    dk_nn_unwind(nn, mark);
}

static void feed_forward(dk_nn *nn, const dk_wan_dit *dit, const dk_wan_block *block,
                         const dk_tensor *x, const dk_tensor *h, const float *gate)
{
    size_t mark = dk_nn_mark(nn);
    dk_tensor middle = dk_nn_temp(nn, nn->type, x->shape[0], dit->config.ffn_dim);
    dk_nn_linear_forward(nn, &block->ffn_in, &middle, h,
                         &(dk_nn_epilogue){.activation = DK_ACT_GELU_TANH});
    dk_nn_linear_forward(nn, &block->ffn_out, x, &middle,
                         &(dk_nn_epilogue){.gate = gate, .residual = true});
    dk_nn_unwind(nn, mark);
}

static void block_forward(dk_nn *nn, const dk_wan_dit *dit, int64_t i,
                          const dk_wan_dit_grid *grid, const dk_wan_dit_text *text,
                          const dk_tensor *x, const dk_tensor *modulation)
{
    const dk_wan_block *block = &dit->blocks[i];
    int64_t dim = model_dim(dit);
    size_t mark = dk_nn_mark(nn);
    dk_tensor h = dk_nn_temp(nn, nn->type, x->shape[0], dim);
    dk_tensor table = dk_nn_temp(nn, DK_F32, 6, dim);
    dk_tensor stored = DK_TENSOR((void *)block->scale_shift, DK_F32, 6, dim);
    dk_nn_add(nn, &table, &stored, modulation);
    const float *shift = table.data, *scale = shift + dim, *gate = scale + dim;
    const float *ffn_shift = gate + dim, *ffn_scale = ffn_shift + dim,
                *ffn_gate = ffn_scale + dim;
    dk_nn_norm plain = {.kind = DK_NORM_LAYER, .eps = dit->config.eps};
    dk_nn_norm norm1 = plain, norm2 = plain, norm3 = plain;
    norm1.scale = scale;
    norm1.shift = shift;
    norm2.weight = block->norm2;
    norm2.bias = block->norm2_bias;
    norm3.scale = ffn_scale;
    norm3.shift = ffn_shift;

    dk_nn_norm_forward(nn, &norm1, &h, x);
    self_attention(nn, dit, &block->attn1, grid, x, &h, gate);
    if (dit->config.cross_attn_norm) {
        dk_nn_norm_forward(nn, &norm2, &h, x);
    } else {
        dk_nn_map(nn, &h, x, DK_ACT_NONE);
    }
    cross_attention(nn, dit, &block->attn2, &text->k[i], &text->v[i],
                    text->bias.values != NULL ? &text->bias : NULL, x, &h);
    dk_nn_norm_forward(nn, &norm3, &h, x);
    feed_forward(nn, dit, block, x, &h, ffn_gate);
    dk_nn_unwind(nn, mark);
}

/* Final norm, modulated by the time embedding itself, and the projection back to patches. */
static void head_forward(dk_nn *nn, const dk_wan_dit *dit, const dk_tensor *patches,
                         const dk_tensor *x, const dk_tensor *temb)
{
    int64_t dim = model_dim(dit);
    dk_tensor h = dk_nn_temp(nn, nn->type, x->shape[0], dim);
    dk_tensor table = dk_nn_temp(nn, DK_F32, 2, dim);
    for (int row = 0; row < 2; row++) {
        dk_tensor dst = DK_TENSOR((float *)table.data + row * dim, DK_F32, 1, dim);
        dk_tensor stored = DK_TENSOR((void *)(dit->scale_shift + row * dim), DK_F32, 1, dim);
        dk_nn_add(nn, &dst, &stored, temb);
    }
    dk_nn_norm norm = {.kind = DK_NORM_LAYER,
                       .eps = dit->config.eps,
                       .shift = table.data,
                       .scale = (const float *)table.data + dim};
    dk_nn_norm_forward(nn, &norm, &h, x);
    dk_nn_linear_forward(nn, &dit->proj_out, patches, &h, NULL);
}

dk_status dk_wan_dit_forward(dk_nn *nn, const dk_wan_dit *dit, const dk_wan_dit_grid *grid,
                             const dk_wan_dit_text *text, const dk_tensor *out,
                             const dk_tensor *latent, float timestep, dk_error *err)
{
    const dk_wan_dit_config *c = &dit->config;
    int64_t dim = model_dim(dit);
    int64_t row = c->in_channels * c->patch[0] * c->patch[1] * c->patch[2];
    size_t mark = dk_nn_mark(nn);
    dk_tensor patches = dk_nn_temp(nn, DK_F32, grid->tokens, row);
    dk_tensor x = dk_nn_temp(nn, DK_F32, grid->tokens, dim);
    dk_tensor temb = dk_nn_temp(nn, DK_F32, 1, dim);
    dk_tensor modulation = dk_nn_temp(nn, DK_F32, 6, dim);
    dk_tensor flat = DK_TENSOR(modulation.data, DK_F32, 1, 6 * dim);

    patchify(nn, dit, grid, &patches, latent);
    dk_nn_linear_forward(nn, &dit->patch_embedding, &x, &patches, NULL);
    embed_time(nn, dit, &temb, &flat, timestep);
    dk_status status = dk_nn_check(nn, err);
    for (int64_t i = 0; i < c->layers && status == DK_OK; i++) {
        block_forward(nn, dit, i, grid, text, &x, &modulation);
        dk_nn_tap(nn, "block", (int)i, &x);
        status = dk_nn_check(nn, err);
    }
    if (status == DK_OK) {
        head_forward(nn, dit, &patches, &x, &temb);
        unpatchify(nn, dit, grid, out, &patches);
        status = dk_nn_check(nn, err);
    }
    dk_nn_unwind(nn, mark);
    return status;
}
