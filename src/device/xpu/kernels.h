/* OpenCL C kernels of our own: compiled to SPIR-V with the program (folder cl), finished by the
   device's driver when one of their file is first needed. */
#ifndef DK_DEVICE_XPU_KERNELS_H
#define DK_DEVICE_XPU_KERNELS_H

#include <dpctl_sycl_kernel_bundle_interface.h>
#include <dpctl_sycl_kernel_interface.h>
#include <dpctl_sycl_queue_interface.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct dk_xpu dk_xpu;

/* KERNEL(id, file, name) */
#define DK_XPU_KERNEL_MAP(KERNEL)                                                              \
    KERNEL(MAP_F32_F32, MAP, "map_f32_f32")                                                    \
    KERNEL(MAP_F32_BF16, MAP, "map_f32_bf16") /* to, from */                                   \
    KERNEL(MAP_BF16_F32, MAP, "map_bf16_f32")                                                  \
    KERNEL(MAP_BF16_BF16, MAP, "map_bf16_bf16")                                                \
    KERNEL(COMBINE, MAP, "combine")                                                            \
    KERNEL(PERMUTE_F32_F32, PERMUTE, "permute_f32_f32")                                        \
    KERNEL(PERMUTE_F32_BF16, PERMUTE, "permute_f32_bf16")                                      \
    KERNEL(PERMUTE_BF16_F32, PERMUTE, "permute_bf16_f32")                                      \
    KERNEL(PERMUTE_BF16_BF16, PERMUTE, "permute_bf16_bf16")                                    \
    KERNEL(PERMUTE3_F32_F32, PERMUTE, "permute3_f32_f32")                                      \
    KERNEL(PERMUTE3_F32_BF16, PERMUTE, "permute3_f32_bf16")                                    \
    KERNEL(PERMUTE3_BF16_F32, PERMUTE, "permute3_bf16_f32")                                    \
    KERNEL(PERMUTE3_BF16_BF16, PERMUTE, "permute3_bf16_bf16")                                  \
    KERNEL(EPILOGUE_F32, EPILOGUE, "epilogue_f32")                                             \
    KERNEL(EPILOGUE_BF16, EPILOGUE, "epilogue_bf16")                                           \
    KERNEL(GATHER_F32_F32, GATHER, "gather_f32_f32")                                           \
    KERNEL(GATHER_F32_BF16, GATHER, "gather_f32_bf16")                                         \
    KERNEL(GATHER_BF16_F32, GATHER, "gather_bf16_f32")                                         \
    KERNEL(GATHER_BF16_BF16, GATHER, "gather_bf16_bf16")                                       \
    KERNEL(NORM_F32_F32, NORM_F32_F32, "norm_f32_f32")                                         \
    KERNEL(NORM_F32_BF16, NORM_F32_BF16, "norm_f32_bf16")                                      \
    KERNEL(NORM_BF16_F32, NORM_BF16_F32, "norm_bf16_f32")                                      \
    KERNEL(NORM_BF16_BF16, NORM_BF16_BF16, "norm_bf16_bf16")                                   \
    KERNEL(NORM_ROPE_F32, NORM_ROPE, "norm_rope_f32")                                          \
    KERNEL(NORM_ROPE_BF16, NORM_ROPE, "norm_rope_bf16")                                        \
    KERNEL(ROW_SQUARES_F32, NORM_ROPE, "row_squares_f32")                                      \
    KERNEL(ROW_SQUARES_BF16, NORM_ROPE, "row_squares_bf16")                                    \
    KERNEL(QUANTIZE_ROWS_F32, QUANTIZE, "quantize_rows_f32")                                   \
    KERNEL(QUANTIZE_ROWS_BF16, QUANTIZE, "quantize_rows_bf16")                                 \
    KERNEL(PRODUCT_F32_F32, PRODUCT, "product_f32_f32") /* rows, weight */                     \
    KERNEL(PRODUCT_F32_BF16, PRODUCT, "product_f32_bf16")                                      \
    KERNEL(PRODUCT_BF16_F32, PRODUCT, "product_bf16_f32")                                      \
    KERNEL(PRODUCT_BF16_BF16, PRODUCT, "product_bf16_bf16")                                    \
    KERNEL(CONVOLVE_F32_F32, PRODUCT, "convolve_f32_f32")                                      \
    KERNEL(CONVOLVE_F32_BF16, PRODUCT, "convolve_f32_bf16")                                    \
    KERNEL(CONVOLVE_BF16_F32, PRODUCT, "convolve_bf16_f32")                                    \
    KERNEL(CONVOLVE_BF16_BF16, PRODUCT, "convolve_bf16_bf16")                                  \
    KERNEL(ABSMAX_F32, GUARD, "absmax_f32")                                                    \
    KERNEL(ABSMAX_BF16, GUARD, "absmax_bf16")                                                  \
    KERNEL(SPOIL_F32, GUARD, "spoil_f32")                                                      \
    KERNEL(SPOIL_BF16, GUARD, "spoil_bf16")                                                    \
    KERNEL(SOFTMAX_F32, ATTENTION, "softmax_f32")                                              \
    KERNEL(SOFTMAX_BF16, ATTENTION, "softmax_bf16")                                            \
    KERNEL(MERGE_F32, ATTENTION, "merge_f32")                                                  \
    KERNEL(MERGE_BF16, ATTENTION, "merge_bf16")                                                \
    KERNEL(SAGE_MEAN_F32, SAGE, "sage_mean_f32")                                               \
    KERNEL(SAGE_MEAN_BF16, SAGE, "sage_mean_bf16")                                             \
    KERNEL(SAGE_ROWS_I8_F32, SAGE, "sage_rows_i8_f32") /* to, from */                          \
    KERNEL(SAGE_ROWS_I8_BF16, SAGE, "sage_rows_i8_bf16")                                       \
    KERNEL(SAGE_ROWS_F32_F32, SAGE, "sage_rows_f32_f32")                                       \
    KERNEL(SAGE_ROWS_F32_BF16, SAGE, "sage_rows_f32_bf16")                                     \
    KERNEL(SAGE_ROWS_BF16_F32, SAGE, "sage_rows_bf16_f32")                                     \
    KERNEL(SAGE_ROWS_BF16_BF16, SAGE, "sage_rows_bf16_bf16")                                   \
    KERNEL(FLASH_F32_64, FLASH_64, "flash_f32_64")                                             \
    KERNEL(FLASH_F32_128, FLASH_128, "flash_f32_128")                                          \
    KERNEL(FLASH_F32_256, FLASH_256, "flash_f32_256")                                          \
    KERNEL(FLASH_F32_512, FLASH_512, "flash_f32_512")                                          \
    KERNEL(FLASH_BF16_64, FLASH_64, "flash_bf16_64")                                           \
    KERNEL(FLASH_BF16_128, FLASH_128, "flash_bf16_128")                                        \
    KERNEL(FLASH_BF16_256, FLASH_256, "flash_bf16_256")                                        \
    KERNEL(FLASH_BF16_512, FLASH_512, "flash_bf16_512")                                        \
    KERNEL(FLASH_XMX8_64, FLASH_XMX8, "flash_xmx8_64")                                         \
    KERNEL(FLASH_XMX8_128, FLASH_XMX8, "flash_xmx8_128")                                       \
    KERNEL(FLASH_XMX16_64, FLASH_XMX16, "flash_xmx16_64")                                      \
    KERNEL(FLASH_XMX16_128, FLASH_XMX16, "flash_xmx16_128")

typedef enum dk_xpu_kernel {
#define DK_XPU_KERNEL_ID(id, file, name) DK_XPU_##id,
    DK_XPU_KERNEL_MAP(DK_XPU_KERNEL_ID)
#undef DK_XPU_KERNEL_ID
        DK_XPU_KERNEL_COUNT
} dk_xpu_kernel;

typedef enum dk_xpu_file {
    DK_XPU_FILE_MAP,
    DK_XPU_FILE_PERMUTE,
    DK_XPU_FILE_EPILOGUE,
    DK_XPU_FILE_GATHER,
    DK_XPU_FILE_NORM_F32_F32,
    DK_XPU_FILE_NORM_F32_BF16,
    DK_XPU_FILE_NORM_BF16_F32,
    DK_XPU_FILE_NORM_BF16_BF16,
    DK_XPU_FILE_NORM_ROPE,
    DK_XPU_FILE_QUANTIZE,
    DK_XPU_FILE_GUARD,
    DK_XPU_FILE_PRODUCT,
    DK_XPU_FILE_ATTENTION,
    DK_XPU_FILE_SAGE,
    DK_XPU_FILE_FLASH_64,
    DK_XPU_FILE_FLASH_128,
    DK_XPU_FILE_FLASH_256,
    DK_XPU_FILE_FLASH_512,
    DK_XPU_FILE_FLASH_XMX8,
    DK_XPU_FILE_FLASH_XMX16,
    DK_XPU_FILE_COUNT
} dk_xpu_file;

/* The SPIR-V of a file, generated with the program; in the order of dk_xpu_file. */
typedef struct dk_xpu_spirv {
    const char *name;
    const unsigned char *bytes;
    size_t size;
} dk_xpu_spirv;
extern const dk_xpu_spirv dk_xpu_spirv_files[];

typedef struct dk_xpu_kernels {
    DPCTLSyclKernelBundleRef bundle[DK_XPU_FILE_COUNT]; /* NULL: not needed so far */
    DPCTLSyclKernelRef kernel[DK_XPU_KERNEL_COUNT];
} dk_xpu_kernels;

void dk_xpu_kernels_release(dk_xpu_kernels *kernels);

/* A kernel's arguments in order; values are copied. */
enum { DK_XPU_MOST_ARGS = 48 };
typedef union dk_xpu_value {
    void *pointer;
    int64_t i64;
    int32_t i32;
    float f32;
} dk_xpu_value;
typedef struct dk_xpu_args {
    dk_xpu_value values[DK_XPU_MOST_ARGS];
    DPCTLKernelArgType types[DK_XPU_MOST_ARGS];
    size_t count;
} dk_xpu_args;

static inline void dk_xpu_arg_pointer(dk_xpu_args *args, void *device)
{
    args->values[args->count].pointer = device;
    args->types[args->count++] = DPCTL_VOID_PTR;
}
static inline void dk_xpu_arg_i64(dk_xpu_args *args, int64_t value)
{
    args->values[args->count].i64 = value;
    args->types[args->count++] = DPCTL_INT64_T;
}
static inline void dk_xpu_arg_i32(dk_xpu_args *args, int32_t value)
{
    args->values[args->count].i32 = value;
    args->types[args->count++] = DPCTL_INT32_T;
}
static inline void dk_xpu_arg_f32(dk_xpu_args *args, float value)
{
    args->values[args->count].f32 = value;
    args->types[args->count++] = DPCTL_FLOAT32_T;
}

/* Makes a kernel ready, which may take a second the first time; false after a failure. */
bool dk_xpu_kernel_ready(dk_xpu *xpu, dk_xpu_kernel kernel);

/* Enqueues `groups` work-groups of `local` work-items each, in OpenCL's order of dimensions
   (the first is the fastest); after a failure, or when dry, only makes the kernel ready. */
void dk_xpu_launch(dk_xpu *xpu, dk_xpu_kernel kernel, dk_xpu_args *args, const size_t groups[3],
                   const size_t local[3]);

/* The id of a family's variant, which are in the order f32 f32, f32 bf16, bf16 f32, bf16 bf16.
 */
static inline dk_xpu_kernel dk_xpu_variant(dk_xpu_kernel first, bool to_bf16, bool from_bf16)
{
    return (dk_xpu_kernel)((int)first + 2 * to_bf16 + from_bf16);
}

#endif
