/* Norms of bf16 that give bf16: a file each, since a driver takes its time to build one. */
#include "norm_tmpl.cl"

NORM(bf16, bf16)
