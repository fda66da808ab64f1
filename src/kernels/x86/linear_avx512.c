/* Linear layers' epilogue. */
#include "kernels/x86/vec_avx512.h"

#define LINEAR_STORE dk_linear_store_avx512
#include "kernels/x86/linear_tmpl.h"
