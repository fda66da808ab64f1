/* The two kernels of a file: of f32 and of bf16. */
#define FLASH JOIN(flash_f32_, HEAD)
#define TYPE  f32
#define LOAD  LOAD_f32
#define STORE STORE_f32
#include "flash_tmpl.cl"

#define FLASH JOIN(flash_bf16_, HEAD)
#define TYPE  bf16
#define LOAD  LOAD_bf16
#define STORE STORE_bf16
#include "flash_tmpl.cl"
