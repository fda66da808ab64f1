/* Norms of f32 that give f32: a file each, since a driver takes its time to build one. */
#include "norm_tmpl.cl"

NORM(f32, f32)
