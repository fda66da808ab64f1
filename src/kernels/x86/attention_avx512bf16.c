/* Attention's softmax, which packs its results for the AMX kernel, and scaling. */
#include "kernels/x86/vec_avx512.h"

#define SOFTMAX       dk_softmax_avx512bf16
#define SOFTMAX_PACKS 1
#define SCALE_ROW     dk_scale_row_avx512bf16
#include "kernels/x86/attention_tmpl.h"
