/* Normalisation. */
#include "kernels/x86/vec_avx512.h"

#define NORM        dk_norm_avx512
#define NORM_ROPE   dk_norm_rope_avx512
#define ROW_SQUARES dk_row_squares_avx512
#include "kernels/x86/norm_tmpl.h"
