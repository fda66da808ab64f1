/* Attention's softmax and scaling. */
#include "kernels/x86/vec_avx2.h"

#define SOFTMAX   dk_softmax_avx2
#define SCALE_ROW dk_scale_row_avx2
#include "kernels/x86/attention_tmpl.h"
