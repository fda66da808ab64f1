/* The x86 versions of attention's softmax and scaling. */
#ifndef DK_KERNELS_X86_ATTENTION_X86_H
#define DK_KERNELS_X86_ATTENTION_X86_H

#include "kernels/attention.h"

void dk_attention_kernels_init_x86(dk_attention_kernels *kernels, unsigned cpu_flags);

void dk_softmax_avx2(const dk_softmax_args *args);
void dk_softmax_avx512(const dk_softmax_args *args);
void dk_softmax_avx512bf16(const dk_softmax_args *args);
void dk_scale_row_avx2(void *dst, dk_dtype type, const float *src, float factor, int64_t count);
void dk_scale_row_avx512(void *dst, dk_dtype type, const float *src, float factor,
                         int64_t count);
void dk_scale_row_avx512bf16(void *dst, dk_dtype type, const float *src, float factor,
                             int64_t count);

#endif
