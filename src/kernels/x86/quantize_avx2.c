/* Quantisation. */
#include "kernels/x86/vec_avx2.h"

#define QUANTIZE_ROWS dk_quantize_rows_avx2
#define RESCALE       dk_rescale_avx2
#include "kernels/x86/quantize_tmpl.h"
