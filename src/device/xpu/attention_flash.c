/* Attention by our kernels that keep scores on the chip. */
#include "device/xpu/xpu.h"

enum { LANES = 16 };

/* The kernels' sizes, see cl/flash.cl; in the order of their ids. */
static const struct {
    int head_dim; /* at most */
    int rows, sub_groups;
} variants[] = {{64, 8, 8}, {128, 4, 16}, {256, 2, 16}, {512, 1, 16}};
enum { VARIANTS = sizeof variants / sizeof *variants };

static void operand(dk_xpu *xpu, dk_xpu_args *args, const void *address)
{
    dk_xpu_arg_pointer(args, xpu->head.dry ? NULL : dk_xpu_operand(xpu, address));
}

static void append_args(dk_xpu *xpu, dk_xpu_args *args, const dk_attention_args *a)
{
    operand(xpu, args, a->dst);
    operand(xpu, args, a->q);
    operand(xpu, args, a->k);
    operand(xpu, args, a->v);
    operand(xpu, args, a->bias);
    operand(xpu, args, a->lse);
    dk_xpu_arg_f32(args, a->scale);
    dk_xpu_arg_i32(args, a->causal);
    dk_xpu_arg_i32(args, a->head_dim);
    dk_xpu_arg_i64(args, a->q_len);
    dk_xpu_arg_i64(args, a->kv_len);
    dk_xpu_arg_i64(args, a->q_stride);
    dk_xpu_arg_i64(args, a->k_stride);
    dk_xpu_arg_i64(args, a->v_stride);
    dk_xpu_arg_i64(args, a->dst_stride);
    dk_xpu_arg_i64(args, a->bias_head);
    dk_xpu_arg_i64(args, a->bias_q);
    dk_xpu_arg_i64(args, a->bias_k);
}

void dk_xpu_attention_flash(dk_xpu *xpu, const dk_attention_args *a)
{
    dk_xpu_args args = {0};
    int i = 0;
    while (i < VARIANTS - 1 && a->head_dim > variants[i].head_dim) {
        i++;
    }
    append_args(xpu, &args, a);
    int first = a->type == DK_BF16 ? DK_XPU_FLASH_BF16_64 : DK_XPU_FLASH_F32_64;
    int64_t block = (int64_t)variants[i].rows * variants[i].sub_groups;
    size_t blocks = (size_t)((a->q_len + block - 1) / block);
    dk_xpu_launch(xpu, (dk_xpu_kernel)(first + i), &args,
                  (size_t[]){blocks, (size_t)a->heads, 1},
                  (size_t[]){LANES, (size_t)variants[i].sub_groups, 1});
}

bool dk_xpu_attention_has_xmx(dk_xpu *xpu, const dk_attention_args *args)
{
    (void)xpu;
    (void)args;
    return false;
}

void dk_xpu_attention_flash_xmx(dk_xpu *xpu, const dk_attention_args *args)
{
    dk_xpu_attention_flash(xpu, args);
}
