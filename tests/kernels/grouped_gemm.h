/* A matrix-multiply kernel of an unusual shape, in plain C: bf16 panels of 7 rows and 12
   columns with depths in groups of 4. What works with it assumes nothing of a kernel's shape,
   on machines whose own kernels are all alike. */
#ifndef DK_TESTS_GROUPED_GEMM_H
#define DK_TESTS_GROUPED_GEMM_H

#include "kernels/gemm.h"

dk_gemm_kernel grouped_gemm(void);
/* The same shape over whole numbers, A without a sign and B panels with headers. */
dk_gemm_kernel grouped_int8_gemm(void);

#endif
