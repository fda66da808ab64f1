/* Blocks of the families. With d = heads * head_dim and f the feed-forward's width, a row is
   multiplied by d x d for each of q, k, v and the attention's output (4 d^2), and by d x f for
   each matrix of the feed-forward: two, or three where it is gated. Modulation is one row per
   step and therefore weights without rows.

   Traffic between the products (row_bytes), with the residual stream in f32 and everything else
   in bf16, per value: a modulated norm reads 4 bytes and writes 2; a gated residual reads 4 + 2
   and writes 4; norm and rotary embedding of q and k read and write 2 each. */
#include "scaling/geometry.h"

#include <string.h>

enum { NORM_BYTES = 6, RESIDUAL_BYTES = 10, QK_BYTES = 8 };

/* Self-attention, attention to the text, feed-forward. Norms of q and k go over all heads, so
   that tp ranks add up the squares of q and k, and of the cross-attention's q. */
static void add_wan(dk_geometry *g)
{
    const dk_model_shape *s = &g->shape;
    double d = (double)g->dim, f = (double)s->ffn_dim;
    double image = s->image_rows > 0 ? 2 : 0; /* further keys and values */
    g->groups[g->group_count++] = (dk_block_group){
        .name = "blocks",
        .count = s->layers,
        .rows = g->tokens,
        .cross_rows = s->text_rows + s->image_rows,
        .row_weights = 6 * d * d + 2 * d * f,
        .weights = (8 + image) * d * d + 2 * d * f,
        .row_bytes = (3 * NORM_BYTES + 3 * RESIDUAL_BYTES + QK_BYTES) * d,
        .reductions = 3,
        .norm_calls = 3,
        .norm_values = 3,
    };
}

/* Two streams with weights of their own, one attention over both. `gates`: matrices of the
   feed-forward; `modulated`: each stream's block has 6 d^2 of modulation. */
static void add_double(dk_geometry *g, int64_t count, int gates, bool modulated)
{
    double d = (double)g->dim;
    double row = 4 * d * d + gates * d * (double)g->shape.ffn_dim;
    g->groups[g->group_count++] = (dk_block_group){
        .name = "double blocks",
        .count = count,
        .rows = g->tokens + g->shape.text_rows,
        .row_weights = row,
        .weights = 2 * (row + (modulated ? 6 * d * d : 0)),
        .row_bytes = (2 * NORM_BYTES + 2 * RESIDUAL_BYTES + QK_BYTES) * d,
        .reductions = 2,
    };
}

/* One stream, attention beside the feed-forward: one output layer, one residual. */
static void add_single(dk_geometry *g, int64_t count, int gates, bool modulated)
{
    double d = (double)g->dim;
    double row = 4 * d * d + gates * d * (double)g->shape.ffn_dim;
    g->groups[g->group_count++] = (dk_block_group){
        .name = "single blocks",
        .count = count,
        .rows = g->tokens + g->shape.text_rows,
        .row_weights = row,
        .weights = row + (modulated ? 3 * d * d : 0),
        .row_bytes = (NORM_BYTES + RESIDUAL_BYTES + QK_BYTES) * d,
        .reductions = 1,
    };
}

/* One stream, attention before a gated feed-forward, norms before and behind both. */
static void add_z_image(dk_geometry *g, const char *name, int64_t count, int64_t rows,
                        bool modulated)
{
    double d = (double)g->dim;
    double row = 4 * d * d + 3 * d * (double)g->shape.ffn_dim;
    g->groups[g->group_count++] = (dk_block_group){
        .name = name,
        .count = count,
        .rows = rows,
        .row_weights = row,
        .weights = row + (modulated ? 4 * 256 * d : 0),
        .row_bytes = (4 * NORM_BYTES + 2 * RESIDUAL_BYTES + QK_BYTES) * d,
        .reductions = 2,
    };
}

static void add_blocks(dk_geometry *g)
{
    const dk_model_shape *s = &g->shape;
    switch (s->family) {
    case DK_FAMILY_WAN:
        add_wan(g);
        break;
    case DK_FAMILY_FLUX1:
    case DK_FAMILY_HUNYUAN:
        add_double(g, s->layers, 2, true);
        add_single(g, s->single_layers, 2, true);
        break;
    case DK_FAMILY_FLUX2: /* modulation is shared by all blocks of a kind */
        add_double(g, s->layers, 3, false);
        add_single(g, s->single_layers, 3, false);
        break;
    case DK_FAMILY_QWEN_IMAGE:
        add_double(g, s->layers, 2, true);
        break;
    case DK_FAMILY_Z_IMAGE:
        add_z_image(g, "blocks", s->layers, g->tokens + s->text_rows, true);
        add_z_image(g, "picture blocks", s->refiner_layers, g->tokens, true);
        add_z_image(g, "text blocks", s->refiner_layers, s->text_rows, false);
        break;
    }
}

static dk_status check_size(const dk_geometry *g, dk_error *err)
{
    const dk_model_shape *s = &g->shape;
    enum { MOST_PIXELS = 1 << 14, MOST_FRAMES = 1 << 12 };
    if (g->width < 1 || g->height < 1 || g->width > MOST_PIXELS || g->height > MOST_PIXELS ||
        g->width % s->token_side != 0 || g->height % s->token_side != 0) {
        return dk_fail(err, DK_INVALID,
                       "%s: %lld x %lld pixels, accepted are multiples of %lld up to %d",
                       s->name, (long long)g->width, (long long)g->height,
                       (long long)s->token_side, (int)MOST_PIXELS);
    }
    if (s->token_frames == 0 && g->frames != 1) {
        return dk_fail(err, DK_INVALID, "%s: %lld frames, but it makes pictures: accepted is 1",
                       s->name, (long long)g->frames);
    }
    if (g->frames < 1 || g->frames > MOST_FRAMES ||
        (s->token_frames > 0 && (g->frames - 1) % s->token_frames != 0)) {
        return dk_fail(err, DK_INVALID,
                       "%s: %lld frames, accepted are 1 + a multiple of %lld up to %d", s->name,
                       (long long)g->frames, (long long)s->token_frames, (int)MOST_FRAMES);
    }
    return DK_OK;
}

dk_status dk_geometry_init(dk_geometry *out, const dk_model_shape *shape, int64_t width,
                           int64_t height, int64_t frames, int passes, dk_error *err)
{
    dk_geometry g = {.shape = *shape,
                     .width = width > 0 ? width : shape->width,
                     .height = height > 0 ? height : shape->height,
                     .frames = frames > 0 ? frames : shape->frames,
                     .passes = passes > 0 ? passes : shape->passes,
                     .dim = shape->heads * shape->head_dim};
    DK_TRY(check_size(&g, err));
    int64_t latent_frames =
        shape->token_frames > 0 ? (g.frames - 1) / shape->token_frames + 1 : 1;
    g.tokens = latent_frames * (g.height / shape->token_side) * (g.width / shape->token_side);
    g.latent_values = (double)g.tokens * (double)shape->token_values;
    add_blocks(&g);
    g.weights = shape->other_weights;
    for (int i = 0; i < g.group_count; i++) {
        g.weights += (double)g.groups[i].count * g.groups[i].weights;
    }
    double pixels = (double)g.width * (double)g.height;
    g.vae_flops = pixels * (double)g.frames * shape->vae_pixel_flops;
    g.vae_bytes = pixels * shape->vae_pixel_bytes;
    *out = g;
    return DK_OK;
}

double dk_geometry_linear_flops(const dk_geometry *geometry)
{
    double sum = 0;
    for (int i = 0; i < geometry->group_count; i++) {
        const dk_block_group *group = &geometry->groups[i];
        sum += (double)group->count * 2 * (double)group->rows * group->row_weights;
    }
    return sum;
}

/* Scores and their sum over values: 2 operations per query, key and value each. */
double dk_geometry_attention_flops(const dk_geometry *geometry)
{
    double sum = 0;
    for (int i = 0; i < geometry->group_count; i++) {
        const dk_block_group *group = &geometry->groups[i];
        double keys = (double)(group->rows + group->cross_rows);
        sum += (double)group->count * 4 * (double)group->rows * keys * (double)geometry->dim;
    }
    return sum;
}

double dk_geometry_row_bytes(const dk_geometry *geometry)
{
    double sum = 0;
    for (int i = 0; i < geometry->group_count; i++) {
        const dk_block_group *group = &geometry->groups[i];
        sum += (double)group->count * (double)group->rows * group->row_bytes;
    }
    return sum;
}
