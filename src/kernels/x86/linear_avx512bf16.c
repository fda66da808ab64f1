/* Linear layers' epilogue, whose bf16 stores are one instruction here. */
#include "kernels/x86/vec_avx512.h"

#define LINEAR_STORE dk_linear_store_avx512bf16
#include "kernels/x86/linear_tmpl.h"
