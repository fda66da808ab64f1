/* The Wan transformer's forward pass. The residual stream is F32; what the matrix multiplies
   read and write has the activation type. */
#include "models/wan/dit.h"

#include <assert.h>
#include <math.h>

#include "base/alloc.h"
#include "models/wan/dit_model.h"
#include "nn/block.h"
#include "nn/parallel.h"
#include "nn/self_attention.h"

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
    dk_tensor hidden = dk_nn_temp(nn, DK_F32, 1, dk_wan_dit_dim(dit));
    dk_nn_timestep_embedding(nn, &wave, timestep);
    dk_nn_linear_forward(nn, &dit->time_1, &hidden, &wave,
                         &(dk_nn_epilogue){.activation = DK_ACT_SILU});
    dk_nn_linear_forward(nn, &dit->time_2, temb, &hidden, NULL);
    dk_nn_map(nn, &hidden, temb, DK_ACT_SILU);
    dk_nn_linear_forward(nn, &dit->time_proj, modulation, &hidden, NULL);
    dk_nn_unwind(nn, mark);
}

/* The items that a pass still works on: item i has the rows [i grid->rows, (i + 1) grid->rows)
   of every activation. */
typedef struct batch {
    const dk_wan_dit *dit;
    const dk_wan_dit_grid *grid;
    dk_wan_dit_item *items[DK_WAN_DIT_MOST_ITEMS];
    int count;
} batch;

static dk_tensor rows_of_item(const batch *b, const dk_tensor *all, int item)
{
    dk_tensor rows = *all;
    int64_t row = all->shape[1] * (int64_t)dk_dtype_bytes(all->dtype);
    rows.shape[0] = b->grid->rows;
    rows.data = (char *)all->data + item * b->grid->rows * row;
    return rows;
}

/* Takes out the items that somebody stopped; the last ones' rows of x move into their place. */
static void drop_stopped(dk_nn *nn, batch *b, dk_tensor *x)
{
    for (int i = b->count; i-- > 0;) {
        if (nn->stopped >> b->items[i]->wish & 1) {
            b->items[i]->stopped = true;
            b->count--;
            if (i < b->count) {
                dk_tensor hole = rows_of_item(b, x, i), last = rows_of_item(b, x, b->count);
                dk_nn_map(nn, &hole, &last, DK_ACT_NONE);
                b->items[i] = b->items[b->count];
            }
        }
    }
    x->shape[0] = b->count * b->grid->rows;
}

static void self_attention(dk_nn *nn, const batch *b, const dk_wan_attention *attention,
                           const dk_tensor *x, const dk_tensor *h, const float *gate)
{
    const dk_wan_dit *dit = b->dit;
    const dk_wan_dit_config *c = &dit->config;
    const dk_nn_head_norm norm_q = dk_wan_dit_norm(dit, attention->norm_q);
    const dk_nn_head_norm norm_k = dk_wan_dit_norm(dit, attention->norm_k);
    const dk_nn_self_attention self = {.to_q = &attention->to_q,
                                       .to_k = &attention->to_k,
                                       .to_v = &attention->to_v,
                                       .norm_q = &norm_q,
                                       .norm_k = &norm_k,
                                       .rope = &b->grid->rope,
                                       .heads = (int)dit->heads,
                                       .head_dim = (int)c->head_dim,
                                       .scale = 1.0f / sqrtf((float)c->head_dim),
                                       .tokens = b->grid->tokens,
                                       .count = b->count};
    size_t mark = dk_nn_mark(nn);
    dk_tensor mixed = dk_nn_temp(nn, nn->type, x->shape[0], dit->heads * c->head_dim);
    dk_nn_self_attention_forward(nn, &self, &mixed, h);
    dk_nn_linear_forward(nn, &attention->to_out, x, &mixed,
                         &(dk_nn_epilogue){.gate = gate, .residual = true});
    dk_nn_unwind(nn, mark);
}

/* Every item looks at its own text. */
static void cross_attention(dk_nn *nn, const batch *b, int64_t block,
                            const dk_wan_attention *attention, const dk_tensor *x,
                            const dk_tensor *h)
{
    const dk_wan_dit_config *c = &b->dit->config;
    const dk_nn_head_norm norm = dk_wan_dit_norm(b->dit, attention->norm_q);
    int heads = (int)b->dit->heads;
    size_t mark = dk_nn_mark(nn);
    dk_tensor q = dk_nn_temp(nn, nn->type, x->shape[0], heads * c->head_dim);
    dk_tensor mixed = dk_nn_temp(nn, nn->type, x->shape[0], heads * c->head_dim);
    dk_nn_linear_forward(nn, &attention->to_q, &q, h, NULL);
    dk_nn_norm_rope(nn, &q, heads, &norm, NULL);
    for (int i = 0; i < b->count; i++) {
        const dk_wan_dit_text *text = b->items[i]->text;
        const dk_nn_bias *bias = text->bias.values != NULL ? &text->bias : NULL;
        dk_tensor qi = rows_of_item(b, &q, i), out = rows_of_item(b, &mixed, i);
        dk_nn_attention(nn, &out, &qi, &text->k[block], &text->v[block], heads,
                        1.0f / sqrtf((float)c->head_dim), bias);
    }
    dk_nn_linear_forward(nn, &attention->to_out, x, &mixed,
                         &(dk_nn_epilogue){.residual = true});
    dk_nn_unwind(nn, mark);
}

static void feed_forward(dk_nn *nn, const dk_wan_dit *dit, const dk_wan_block *block,
                         const dk_tensor *x, const dk_tensor *h, const float *gate)
{
    size_t mark = dk_nn_mark(nn);
    dk_tensor middle = dk_nn_temp(nn, nn->type, x->shape[0], dit->ffn_dim);
    dk_nn_linear_forward(nn, &block->ffn_in, &middle, h,
                         &(dk_nn_epilogue){.activation = DK_ACT_GELU_TANH});
    dk_nn_linear_forward(nn, &block->ffn_out, x, &middle,
                         &(dk_nn_epilogue){.gate = gate, .residual = true});
    dk_nn_unwind(nn, mark);
}

static void block_forward(dk_nn *nn, const batch *b, int64_t i, const dk_tensor *x,
                          const dk_tensor *modulation)
{
    const dk_wan_dit *dit = b->dit;
    const dk_wan_block *block = &dit->blocks[i];
    int64_t dim = dk_wan_dit_dim(dit);
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
    self_attention(nn, b, &block->attn1, x, &h, gate);
    if (dit->config.cross_attn_norm) {
        dk_nn_norm_forward(nn, &norm2, &h, x);
    } else {
        dk_nn_map(nn, &h, x, DK_ACT_NONE);
    }
    cross_attention(nn, b, i, &block->attn2, x, &h);
    dk_nn_norm_forward(nn, &norm3, &h, x);
    feed_forward(nn, dit, block, x, &h, ffn_gate);
    dk_nn_unwind(nn, mark);
}

/* Final norm, modulated by the time embedding itself, and the projection back to patches. */
static void head_forward(dk_nn *nn, const dk_wan_dit *dit, const dk_tensor *patches,
                         const dk_tensor *x, const dk_tensor *temb)
{
    int64_t dim = dk_wan_dit_dim(dit);
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

/* Patches of all items, each this rank's of its tokens. */
static void read_latents(dk_nn *nn, const batch *b, const dk_tensor *patches)
{
    size_t mark = dk_nn_mark(nn);
    bool shared = b->grid->rows != b->grid->tokens;
    int64_t row = patches->shape[1];
    dk_tensor whole = dk_nn_temp(nn, DK_F32, shared ? b->grid->tokens : 0, row);
    for (int i = 0; i < b->count; i++) {
        dk_tensor tokens = rows_of_item(b, patches, i);
        patchify(nn, b->dit, b->grid, shared ? &whole : &tokens, &b->items[i]->latent);
        if (shared) {
            dk_tensor mine = DK_TENSOR((float *)whole.data + b->grid->first * row, DK_F32,
                                       b->grid->rows, row);
            dk_nn_map(nn, &tokens, &mine, DK_ACT_NONE);
        }
    }
    dk_nn_unwind(nn, mark);
}

/* Every rank gets all items' outputs whole. */
static void write_latents(dk_nn *nn, const batch *b, const dk_tensor *patches)
{
    size_t mark = dk_nn_mark(nn);
    bool shared = b->grid->rows != b->grid->tokens;
    dk_tensor whole = dk_nn_temp(nn, DK_F32, shared ? b->grid->tokens : 0, patches->shape[1]);
    for (int i = 0; i < b->count; i++) {
        dk_tensor tokens = rows_of_item(b, patches, i);
        if (shared) {
            dk_nn_gather_sequence(nn, &whole, &tokens);
        }
        unpatchify(nn, b->dit, b->grid, &b->items[i]->out, shared ? &whole : &tokens);
    }
    dk_nn_unwind(nn, mark);
}

dk_status dk_wan_dit_forward_batch(dk_nn *nn, const dk_wan_dit *dit,
                                   const dk_wan_dit_grid *grid, dk_wan_dit_item *items,
                                   int count, float timestep, dk_error *err)
{
    const dk_wan_dit_config *c = &dit->config;
    int64_t dim = dk_wan_dit_dim(dit), rows = count * grid->rows;
    int64_t row = c->in_channels * c->patch[0] * c->patch[1] * c->patch[2];
    batch b = {.dit = dit, .grid = grid, .count = count};
    assert(count >= 0 && count <= DK_WAN_DIT_MOST_ITEMS);
    size_t mark = dk_nn_mark(nn);
    dk_tensor patches = dk_nn_temp(nn, DK_F32, rows, row);
    dk_tensor x = dk_nn_temp(nn, DK_F32, rows, dim);
    dk_tensor temb = dk_nn_temp(nn, DK_F32, 1, dim);
    dk_tensor modulation = dk_nn_temp(nn, DK_F32, 6, dim);
    dk_tensor flat = DK_TENSOR(modulation.data, DK_F32, 1, 6 * dim);

    for (int i = 0; i < count; i++) {
        b.items[i] = &items[i];
    }
    if (count > 0) {
        read_latents(nn, &b, &patches);
        dk_nn_linear_forward(nn, &dit->patch_embedding, &x, &patches, NULL);
        embed_time(nn, dit, &temb, &flat, timestep);
    }
    dk_status status = dk_nn_check_block(nn, err);
    for (int64_t i = 0; i < c->layers && status == DK_OK; i++) {
        dk_nn_block_begin(nn, DK_COMPONENT_TRANSFORMER, &dit->bound, (int)i);
        if (b.count > 0) {
            block_forward(nn, &b, i, &x, &modulation);
        }
        dk_nn_block_end(nn, DK_COMPONENT_TRANSFORMER, &dit->bound, (int)i, &x);
        if (b.count > 0) {
            dk_nn_tap(nn, "block", (int)i, &x);
        }
        status = dk_nn_check_block(nn, err);
        drop_stopped(nn, &b, &x);
    }
    if (status == DK_OK && b.count > 0) {
        patches.shape[0] = x.shape[0];
        head_forward(nn, dit, &patches, &x, &temb);
        write_latents(nn, &b, &patches);
    }
    if (status == DK_OK) {
        status = dk_nn_check(nn, err);
    }
    dk_nn_unwind(nn, mark);
    return status;
}

dk_status dk_wan_dit_forward(dk_nn *nn, const dk_wan_dit *dit, const dk_wan_dit_grid *grid,
                             const dk_wan_dit_text *text, const dk_tensor *out,
                             const dk_tensor *latent, float timestep, dk_error *err)
{
    dk_wan_dit_item item = {.text = text, .latent = *latent, .out = *out};
    return dk_wan_dit_forward_batch(nn, dit, grid, &item, 1, timestep, err);
}
