/* Norms of f32 that give bf16: a file each, since a driver takes its time to build one. */
#include "norm_tmpl.cl"

NORM(bf16, f32)
