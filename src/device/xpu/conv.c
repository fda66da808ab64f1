/* Convolutions of channels-last clips by oneDNN. Its source is one piece of memory: frames that
   lie apart, of another type or to be enlarged are gathered first. Pictures (no taps in time)
   are a batch for a two-dimensional convolution. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "device/xpu/own_products.h"
#include "device/xpu/trust.h"

enum { KIND_CONV = 2 };

/* What dk_device_conv_prepare gives: the weight stays where it is until
   its first use. */
typedef struct conv_weight {
    dk_xpu_stored stored;
} conv_weight;

static void release_weight(dk_xpu *xpu, void *memory)
{
    (void)xpu;
    dk_free(memory);
}

/* shape: out, in, taps in time, height and width. */
static dk_xpu_stored stored_as(const void *weight, dk_dtype type, const int *shape)
{
    bool flat = shape[2] == 1;
    int64_t area = (int64_t)shape[3] * shape[4], volume = shape[2] * area;
    const int64_t dims[5] = {shape[0], shape[1], shape[2], shape[3], shape[4]};
    const int64_t strides[5] = {shape[1] * volume, volume, area, shape[4], 1};
    dk_xpu_stored stored = {.host = weight, .type = type, .rank = flat ? 4 : 5};
    for (int i = 0, from = 0; i < stored.rank; i++, from++) {
        from += flat && from == 2;
        stored.dims[i] = dims[from];
        stored.strides[i] = strides[from];
    }
    return stored;
}

dk_status dk_xpu_conv_prepare(dk_device *device, void **packed, const void *weight,
                              dk_dtype weight_type, const int *shape, dk_error *err)
{
    (void)err;
    conv_weight *made = dk_alloc(sizeof *made);
    made->stored = stored_as(weight, weight_type, shape);
    dk_xpu_keep(dk_xpu_of(device), made, release_weight);
    *packed = made;
    return DK_OK;
}

typedef struct plan {
    const dk_conv_args *args;
    dk_dtype type;
    bool gathers;  /* the source is made contiguous, in scratch */
    bool joins;    /* its first frames are copied in front of the others */
    bool wide;     /* sums go to scratch, as f32; the epilogue follows */
    bool flat;     /* a batch of pictures */
    bool by_frame; /* one call per frame of the result, since they lie apart */
    int in_frames, up_height, up_width;
    int skipped;   /* rows at the top of every frame that are not read: a negative pad_top */
    int read_rows; /* behind them; with strides of 1 there may be more that are not read */
} plan;

static size_t frame_bytes(const dk_conv_args *a)
{
    return (size_t)a->height * (size_t)a->width * (size_t)a->in_channels *
           dk_dtype_bytes(a->src_type);
}

/* Frames from `first` on. */
static bool lie_together(const dk_conv_args *a, int first, int frames)
{
    for (int i = first; i < frames; i++) {
        if (a->frames[i] == NULL ||
            (const char *)a->frames[i] !=
                (const char *)a->frames[first] + (size_t)(i - first) * frame_bytes(a)) {
            return false;
        }
    }
    return true;
}

static plan plan_of(const dk_xpu *xpu, const dk_conv_args *a)
{
    dk_dtype type = dk_xpu_compute_type(xpu);
    int64_t dense = (int64_t)a->out_height * a->out_width * a->out_channels;
    plan p = {.args = a,
              .type = type,
              .in_frames = (a->out_frames - 1) * a->stride_t + a->kernel_t,
              .up_height = a->height * a->upsample,
              .up_width = a->width * a->upsample,
              .skipped = a->pad_top < 0 ? -a->pad_top : 0,
              .flat = a->kernel_t == 1 && a->stride_t == 1};
    int reach =
        (a->out_height - 1) * a->stride + a->kernel_h - (a->pad_top > 0 ? a->pad_top : 0);
    p.read_rows = p.up_height - p.skipped;
    p.read_rows = reach < p.read_rows && a->stride == 1 ? reach : p.read_rows;
    bool dry = xpu->head.dry; /* its addresses mean nothing */
    bool as_it_lies = dry ? p.in_frames == 1 : lie_together(a, 0, p.in_frames);
    bool roomy = a->room > 0 && (dry || lie_together(a, a->room, p.in_frames));
    p.gathers = a->src_type != type || a->upsample != 1 || !(as_it_lies || roomy);
    p.joins = !p.gathers && !as_it_lies;
    p.wide = type == DK_F32 && a->dst_type != DK_F32;
    p.by_frame = !p.wide && a->out_frames > 1 && a->dst_frame_stride != dense;
    return p;
}

static dk_xpu_key key_of(const plan *p)
{
    const dk_conv_args *a = p->args;
    int residual = a->residual == NULL ? 0 : a->residual == a->dst ? 1 : 2;
    return (dk_xpu_key){{KIND_CONV,
                         p->up_height,
                         p->up_width,
                         a->in_channels,
                         p->by_frame ? 1 : a->out_frames,
                         a->out_height,
                         a->out_width,
                         a->out_channels,
                         a->kernel_t,
                         a->kernel_h,
                         a->kernel_w,
                         a->stride_t,
                         a->stride,
                         a->pad_top,
                         a->pad_left,
                         (int64_t)p->type,
                         (int64_t)a->dst_type,
                         p->wide,
                         a->bias != NULL,
                         p->wide ? 0 : (int64_t)a->activation,
                         p->wide ? 0 : residual}};
}

/* Dimensions of a clip as oneDNN counts them, and its strides: channels last. In memory a frame
   has `rows` rows, of which `height` count. */
static dnnl_memory_desc_t clip_desc(dk_xpu *xpu, const plan *p, const int64_t shape[4],
                                    int64_t rows, dnnl_data_type_t type)
{
    int64_t frames = shape[0], channels = shape[1], height = shape[2], width = shape[3];
    int64_t row = width * channels, frame = rows * row;
    if (p->flat) {
        return dk_xpu_desc(xpu, 4, (int64_t[]){frames, channels, height, width},
                           (int64_t[]){frame, 1, row, channels}, type);
    }
    return dk_xpu_desc(xpu, 5, (int64_t[]){1, channels, frames, height, width},
                       (int64_t[]){frames * frame, 1, frame, row, channels}, type);
}

/* Rows or columns that the last outputs read beyond the picture; negative: they do not reach
   its end. */
static int64_t beyond(int out, int stride, int kernel, int size, int pad)
{
    return (int64_t)(out - 1) * stride + kernel - size - pad;
}

static dnnl_primitive_desc_t describe(dk_xpu *xpu, const plan *p, int frames,
                                      const dnnl_memory_desc_t desc[4],
                                      dnnl_primitive_attr_t attr)
{
    const dk_conv_args *a = p->args;
    int64_t top = a->pad_top > 0 ? a->pad_top : 0;
    int64_t bottom = beyond(a->out_height, a->stride, a->kernel_h, p->read_rows, (int)top);
    int64_t right = beyond(a->out_width, a->stride, a->kernel_w, p->up_width, a->pad_left);
    int64_t late =
        beyond(frames, a->stride_t, a->kernel_t, (frames - 1) * a->stride_t + a->kernel_t, 0);
    const dnnl_dims_t strides = {a->stride_t, a->stride, a->stride}, dilates = {0, 0, 0};
    const dnnl_dims_t before = {0, top, a->pad_left}, after = {late, bottom, right};
    int skip = p->flat ? 1 : 0;
    dnnl_primitive_desc_t made = NULL;
    dnnl_status_t status = dnnl_convolution_forward_primitive_desc_create(
        &made, xpu->engine, dnnl_forward_inference, dnnl_convolution_direct, desc[0], desc[1],
        desc[2], desc[3], strides + skip, dilates + skip, before + skip, after + skip, attr);
    return dk_xpu_dnnl_ok(xpu, status, "a convolution") ? made : NULL;
}

static dk_xpu_primitive *make(dk_xpu *xpu, const dk_xpu_key *key, const plan *p,
                              const dk_xpu_stored *stored)
{
    const dk_conv_args *a = p->args;
    int frames = p->by_frame ? 1 : a->out_frames;
    int in_frames = (frames - 1) * a->stride_t + a->kernel_t;
    dnnl_data_type_t type = dk_xpu_dnnl_type(p->type);
    dnnl_data_type_t out = p->wide ? dnnl_f32 : dk_xpu_dnnl_type(a->dst_type);
    dnnl_memory_desc_t residual = NULL, any = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    dk_xpu_primitive *made = NULL;
    dnnl_dims_t dims;
    memcpy(dims, stored->dims, (size_t)stored->rank * sizeof *dims);
    dk_xpu_dnnl_ok(xpu, dnnl_post_ops_create(&ops), "an epilogue");
    dk_xpu_dnnl_ok(
        xpu,
        dnnl_memory_desc_create_with_tag(&any, stored->rank, dims, type, dnnl_format_tag_any),
        "describing a weight");
    dnnl_memory_desc_t desc[4] = {
        clip_desc(xpu, p, (int64_t[]){in_frames, a->in_channels, p->read_rows, p->up_width},
                  p->up_height, type),
        any,
        a->bias != NULL
            ? dk_xpu_desc(xpu, 1, (int64_t[]){a->out_channels}, (int64_t[]){1}, dnnl_f32)
            : NULL,
        clip_desc(xpu, p, (int64_t[]){frames, a->out_channels, a->out_height, a->out_width},
                  a->out_height, out)};
    if (!p->wide) {
        dk_xpu_append_activation(xpu, ops, a->activation);
        if (a->residual == a->dst && a->residual != NULL) {
            dk_xpu_dnnl_ok(xpu, dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef),
                           "an epilogue");
        } else if (a->residual != NULL) {
            residual = dk_xpu_clone(desc[3]);
            dk_xpu_dnnl_ok(xpu, dnnl_post_ops_append_binary(ops, dnnl_binary_add, residual),
                           "an epilogue");
        }
    }
    if (xpu->head.failed == DK_OK && dk_xpu_attr(xpu, &attr, ops)) {
        dnnl_primitive_desc_t described = describe(xpu, p, frames, desc, attr);
        dnnl_memory_desc_t weights = NULL;
        int last = dnnl_post_ops_len(ops) - 1;
        if (described != NULL) {
            weights =
                dk_xpu_clone(dnnl_primitive_desc_query_md(described, dnnl_query_weights_md, 0));
            made = dk_xpu_primitive_add(xpu, key, described);
        }
        if (made != NULL) {
            made->weights = weights;
            dk_xpu_primitive_operand(made, DNNL_ARG_SRC, desc[0]);
            dk_xpu_primitive_operand(made, DNNL_ARG_DST, desc[3]);
            dk_xpu_primitive_operand(made, DNNL_ARG_WEIGHTS, dk_xpu_clone(weights));
            if (desc[2] != NULL) {
                dk_xpu_primitive_operand(made, DNNL_ARG_BIAS, desc[2]);
            }
            if (residual != NULL) {
                dk_xpu_primitive_operand(
                    made, DNNL_ARG_ATTR_MULTIPLE_POST_OP(last) | DNNL_ARG_SRC_1, residual);
            }
        }
    }
    dnnl_memory_desc_destroy(any);
    dnnl_primitive_attr_destroy(attr);
    dnnl_post_ops_destroy(ops);
    return made;
}

/* How many frames from one on lie one behind the other. */
static int frames_together(const plan *p, int first)
{
    const dk_conv_args *a = p->args;
    int some = 1;
    while (first + some < p->in_frames && a->frames[first] != NULL &&
           (const char *)a->frames[first + some] ==
               (const char *)a->frames[first] + (size_t)some * frame_bytes(a)) {
        some++;
    }
    return some;
}

static void launch_gather(dk_xpu *xpu, const plan *p, void *dst, const void *src, int frames)
{
    const dk_conv_args *a = p->args;
    int64_t pixels = (int64_t)frames * a->height * a->width;
    dk_xpu_args args = {0};
    dk_xpu_arg_pointer(&args, dst);
    dk_xpu_arg_pointer(&args, xpu->head.dry ? NULL : dk_xpu_operand(xpu, src));
    dk_xpu_arg_i32(&args, a->in_channels);
    dk_xpu_arg_i32(&args, a->width);
    dk_xpu_arg_i32(&args, (int32_t)pixels);
    dk_xpu_arg_i32(&args, a->upsample);
    dk_xpu_launch_rows(
        xpu, dk_xpu_variant(DK_XPU_GATHER_F32_F32, p->type == DK_BF16, a->src_type == DK_BF16),
        &args, pixels);
}

/* Frames that lie together come at once; NULL is a frame of zeros. */
static void gather(dk_xpu *xpu, const plan *p, char *scratch)
{
    const dk_conv_args *a = p->args;
    bool copies = a->src_type == p->type && a->upsample == 1;
    size_t bytes = (size_t)p->up_height * (size_t)p->up_width * (size_t)a->in_channels *
                   dk_dtype_bytes(p->type);
    assert(a->upsample == 1 || a->upsample == 2);
    if (xpu->head.dry) {
        if (!copies) {
            launch_gather(xpu, p, NULL, NULL, 1); /* makes the kernel ready */
        }
        return;
    }
    for (int i = 0, some; i < p->in_frames; i += some, scratch += (size_t)some * bytes) {
        some = frames_together(p, i);
        if (a->frames[i] == NULL) {
            dk_xpu_zero(xpu, scratch, bytes);
        } else if (copies) {
            dk_xpu_move(xpu, scratch, dk_xpu_operand(xpu, a->frames[i]), (size_t)some * bytes);
        } else {
            launch_gather(xpu, p, scratch, a->frames[i], some);
        }
    }
}

static void finish(dk_xpu *xpu, const dk_conv_args *a, void *sums)
{
    int64_t pixels = (int64_t)a->out_height * a->out_width;
    dk_xpu_epilogue(xpu, &(dk_xpu_epilogue_args){.sums = sums,
                                                 .rows = a->out_frames * pixels,
                                                 .cols = a->out_channels,
                                                 .activation = a->activation,
                                                 .residual = a->residual,
                                                 .dst = a->dst,
                                                 .dst_type = a->dst_type,
                                                 .block = pixels,
                                                 .block_stride = a->dst_frame_stride,
                                                 .stride = a->out_channels});
}

/* One call, or one for each frame of the result. */
static void execute(dk_xpu *xpu, const plan *p, dk_xpu_primitive *primitive, char *src,
                    dk_xpu_form *form, char *sums)
{
    void *weight = dk_xpu_form_begin(xpu, form);
    DPCTLSyclEventRef event = NULL;
    const dk_conv_args *a = p->args;
    int calls = p->by_frame ? a->out_frames : 1;
    size_t in_frame = (size_t)p->up_height * (size_t)p->up_width * (size_t)a->in_channels *
                      dk_dtype_bytes(p->type);
    size_t out_frame = (size_t)a->dst_frame_stride * dk_dtype_bytes(a->dst_type);
    size_t skipped = in_frame / (size_t)p->up_height * (size_t)p->skipped;
    for (int t = 0; t < calls && (weight != NULL || xpu->head.dry); t++) {
        void *addresses[DK_XPU_MOST_OPERANDS];
        int count = 0;
        if (!xpu->head.dry) {
            char *dst = p->wide ? sums : dk_xpu_operand(xpu, a->dst);
            addresses[count++] = src + (size_t)(t * a->stride_t) * in_frame + skipped;
            addresses[count++] = dst + (size_t)t * out_frame;
            addresses[count++] = weight;
            if (a->bias != NULL) {
                addresses[count++] = dk_xpu_operand(xpu, a->bias);
            }
            if (!p->wide && a->residual != NULL && a->residual != a->dst) {
                addresses[count++] =
                    (char *)dk_xpu_operand(xpu, a->residual) + (size_t)t * out_frame;
            }
        }
        dk_xpu_execute(xpu, primitive, addresses, dk_xpu_form_moves(form) ? &event : NULL);
    }
    dk_xpu_form_end(xpu, form, event);
}

static void plan_calls(dk_xpu *xpu, const plan *p, dk_xpu_primitive *primitive)
{
    for (int t = 0; t < (p->by_frame ? p->args->out_frames : 1); t++) {
        dk_xpu_execute(xpu, primitive, NULL, NULL);
    }
}

/* Copies the first frames in front of the others; returns where they are then. */
static char *join(dk_xpu *xpu, const dk_conv_args *a)
{
    size_t bytes = frame_bytes(a);
    char *rest = dk_xpu_operand(xpu, a->frames[a->room]);
    char *start = rest != NULL ? rest - (size_t)a->room * bytes : NULL;
    for (int i = 0; i < a->room && start != NULL; i++) {
        char *to = start + (size_t)i * bytes;
        const char *from = dk_xpu_operand(xpu, a->frames[i]);
        if (a->frames[i] == NULL) {
            dk_xpu_zero(xpu, to, bytes);
        } else if (from != NULL && from != to) {
            dk_xpu_move(xpu, to, from, bytes);
        }
    }
    return start;
}

/* The source as one piece: where it lies, joined, or gathered into scratch. */
static char *source_of(dk_xpu *xpu, const plan *p)
{
    const dk_conv_args *a = p->args;
    if (!p->gathers && xpu->head.dry) {
        return NULL;
    }
    if (!p->gathers) {
        return p->joins ? join(xpu, a) : dk_xpu_operand(xpu, a->frames[0]);
    }
    char *src =
        dk_xpu_scratch(xpu, (size_t)p->in_frames * (size_t)p->up_height * (size_t)p->up_width *
                                (size_t)a->in_channels * dk_dtype_bytes(p->type));
    gather(xpu, p, src);
    return src;
}

/* The primitive and its weight, checked; false after a failure. */
static bool prepare(dk_xpu *xpu, const plan *p, const dk_xpu_stored *stored,
                    dk_xpu_primitive **primitive, dk_xpu_form **form)
{
    dk_xpu_key key = key_of(p);
    *primitive = dk_xpu_primitive_find(xpu, &key);
    if (*primitive == NULL) {
        *primitive = make(xpu, &key, p, stored);
    }
    if (xpu->head.plans_only) { /* no weight is needed, and none is there */
        return *primitive != NULL;
    }
    *form = *primitive != NULL ? dk_xpu_weight_in(xpu, stored, (*primitive)->weights) : NULL;
    if (*form != NULL && !(*primitive)->checked && !xpu->checks && !xpu->unchecked) {
        dk_xpu_check_conv(xpu, *primitive, *form, stored, p->args);
    }
    return *form != NULL;
}

/* A plan may be of a model whose weights no device has prepared. */
static dk_xpu_stored stored_of(const dk_conv_args *a)
{
    const conv_weight *weight = a->packed_weight;
    const int shape[] = {a->out_channels, a->in_channels, a->kernel_t, a->kernel_h,
                         a->kernel_w};
    return weight != NULL ? weight->stored : stored_as(NULL, DK_F32, shape);
}

static void run(dk_xpu *xpu, const dk_conv_args *a)
{
    plan p = plan_of(xpu, a);
    dk_xpu_primitive *primitive = NULL;
    dk_xpu_form *form = NULL;
    const dk_xpu_stored stored = stored_of(a);
    if (!prepare(xpu, &p, &stored, &primitive, &form)) {
        return;
    }
    bool own = primitive != NULL && (primitive->wrong || xpu->head.careful);
    char *src = source_of(xpu, &p), *sums = NULL;
    if (p.wide || own) {
        sums = dk_xpu_scratch(xpu, (size_t)a->out_frames * (size_t)a->out_height *
                                       (size_t)a->out_width * (size_t)a->out_channels *
                                       sizeof(float));
    }
    if (xpu->head.plans_only) {
        plan_calls(xpu, &p, primitive);
        return;
    }
    if (own) {
        dk_xpu_own_conv(xpu, a, &stored, src, p.type, sums);
    } else {
        execute(xpu, &p, primitive, src, form, sums);
        if (dk_xpu_spoils(xpu, &stored, false) && !xpu->head.dry) {
            dk_xpu_spoil(xpu, p.wide ? sums : dk_xpu_operand(xpu, a->dst),
                         p.wide ? DK_F32 : a->dst_type);
        }
    }
    if (p.wide || own) {
        finish(xpu, a, sums);
    }
}

void dk_xpu_conv(dk_device *device, const dk_conv_args *args)
{
    dk_xpu *xpu = dk_xpu_of(device);
    run(xpu, args);
    dk_xpu_scratch_end(xpu);
}
