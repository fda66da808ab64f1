/* Element-wise work. */
#include "kernels/x86/vec_avx2.h"

#define MAP     dk_map_avx2
#define COMBINE dk_combine_avx2
#include "kernels/x86/elementwise_tmpl.h"
