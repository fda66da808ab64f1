/* Normalisation. */
#include "kernels/x86/vec_avx2.h"

#define NORM        dk_norm_avx2
#define NORM_ROPE   dk_norm_rope_avx2
#define ROW_SQUARES dk_row_squares_avx2
#include "kernels/x86/norm_tmpl.h"
