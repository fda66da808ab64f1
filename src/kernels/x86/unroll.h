/* Repetition for micro-kernels, whose accumulators must be variables with names: gcc keeps an
   array of vectors in memory when the loops over it are unrolled late. */
#ifndef DK_KERNELS_X86_UNROLL_H
#define DK_KERNELS_X86_UNROLL_H

#define DK_REPEAT_6(X)  X(0) X(1) X(2) X(3) X(4) X(5)
#define DK_REPEAT_14(X) DK_REPEAT_6(X) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13)

#endif
