/* Attention by our kernels that keep scores on the chip. */
#include <dpctl_utils.h>

#include "device/xpu/xpu.h"

enum { LANES = 16 };

/* The kernels' sizes, see cl/flash_*.cl; in the order of their ids. */
typedef struct variant {
    int head_dim; /* at most */
    int rows, sub_groups;
} variant;
static const variant variants[] = {{64, 4, 16}, {128, 4, 16}, {256, 2, 16}, {512, 1, 16}};
enum { VARIANTS = sizeof variants / sizeof *variants };

/* Those of matrix instructions: of 8 lanes, of 16. */
enum { XMX_VARIANTS = 2 };
static const variant xmx[2][XMX_VARIANTS] = {{{64, 4, 8}, {128, 2, 16}},
                                             {{64, 8, 8}, {128, 2, 16}}};

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

static void launch(dk_xpu *xpu, dk_xpu_kernel kernel, const dk_attention_args *a, int lanes,
                   int rows, int sub_groups)
{
    dk_xpu_args args = {0};
    int64_t block = (int64_t)rows * sub_groups;
    append_args(xpu, &args, a);
    dk_xpu_launch(xpu, kernel, &args,
                  (size_t[]){(size_t)((a->q_len + block - 1) / block), (size_t)a->heads, 1},
                  (size_t[]){(size_t)(lanes * sub_groups), 1, 1});
}

void dk_xpu_attention_flash(dk_xpu *xpu, const dk_attention_args *a)
{
    int first = a->type == DK_BF16 ? DK_XPU_FLASH_BF16_64 : DK_XPU_FLASH_F32_64, i = 0;
    while (i < VARIANTS - 1 && a->head_dim > variants[i].head_dim) {
        i++;
    }
    launch(xpu, (dk_xpu_kernel)(first + i), a, LANES, variants[i].rows, variants[i].sub_groups);
}

/* Matrix instructions have 16 lanes, or 8 on devices that have such sub-groups too. Whether
   there are any, SYCL's C interface does not say: a driver without them builds no such kernel.
 */
static int find_xmx(dk_xpu *xpu)
{
    size_t count = 0, least = SIZE_MAX;
    size_t *sizes = DPCTLDevice_GetSubGroupSizes(xpu->device, &count);
    for (size_t i = 0; i < count; i++) {
        least = sizes[i] < least ? sizes[i] : least;
    }
    DPCTLSize_t_Array_Delete(sizes);
    int lanes = least == 8 || least == 16 ? (int)least : 0;
    bool gpu = DPCTLDevice_IsGPU(xpu->device);
    if (lanes == 0 || !gpu || xpu->head.failed != DK_OK) {
        return 0;
    }
    if (!dk_xpu_kernel_ready(xpu, lanes == 8 ? DK_XPU_FLASH_XMX8_64 : DK_XPU_FLASH_XMX16_64)) {
        xpu->head.failed = DK_OK;
        return 0;
    }
    return lanes;
}

bool dk_xpu_attention_has_xmx(dk_xpu *xpu, const dk_attention_args *args)
{
    dk_xpu_attention_state *state = &xpu->attention;
    if (args->type != DK_BF16 || args->head_dim > xmx[0][XMX_VARIANTS - 1].head_dim) {
        return false;
    }
    state->xmx_lanes = state->xmx_lanes < 0 ? find_xmx(xpu) : state->xmx_lanes;
    return state->xmx_lanes > 0;
}

void dk_xpu_attention_flash_xmx(dk_xpu *xpu, const dk_attention_args *a)
{
    int lanes = xpu->attention.xmx_lanes, wide = lanes == 16;
    int first = wide ? DK_XPU_FLASH_XMX16_64 : DK_XPU_FLASH_XMX8_64;
    int i = a->head_dim > xmx[wide][0].head_dim;
    launch(xpu, (dk_xpu_kernel)(first + i), a, lanes, xmx[wide][i].rows,
           xmx[wide][i].sub_groups);
}
