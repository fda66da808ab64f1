/* Element-wise work. */
#include "kernels/x86/vec_avx512.h"

#define MAP     dk_map_avx512
#define COMBINE dk_combine_avx512
#include "kernels/x86/elementwise_tmpl.h"
