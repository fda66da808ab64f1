/* Quantisation. */
#include "kernels/x86/vec_avx512.h"

#define QUANTIZE_ROWS dk_quantize_rows_avx512
#define RESCALE       dk_rescale_avx512
#include "kernels/x86/quantize_tmpl.h"
