/* Attention's softmax and scaling. */
#include "kernels/x86/vec_avx512.h"

#define SOFTMAX   dk_softmax_avx512
#define SCALE_ROW dk_scale_row_avx512
#include "kernels/x86/attention_tmpl.h"
