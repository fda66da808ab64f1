/* Linear layers' epilogue. */
#include "kernels/x86/vec_avx2.h"

#define LINEAR_STORE dk_linear_store_avx2
#include "kernels/x86/linear_tmpl.h"
