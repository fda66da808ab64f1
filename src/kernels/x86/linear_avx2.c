/* Linear layers' epilogue and small path. */
#include "kernels/x86/vec_avx2.h"

#define LINEAR_SMALL dk_linear_small_avx2
#define LINEAR_STORE dk_linear_store_avx2
#include "kernels/x86/linear_tmpl.h"
