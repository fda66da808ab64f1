/* Published models. Shapes are their config.json files; elements of encoders and autoencoders
   are those of the published files; sizes and steps those of the model cards. The elements of
   the blocks follow from the shape, `other_weights` is what remains of the published count.

   Operations of the autoencoder's decoder are sums over its convolutions: Wan 2.1's 275 TFLOP
   for 81 frames of 832 x 480 (8.5 MFLOP per pixel), the 2-D one's 10.5 TFLOP for 1024 x 1024
   (10 MFLOP); Wan 2.2's and HunyuanVideo's are estimates by their levels. Text encoders: 2
   operations per element outside of the embedding and row. */
#include <string.h>

#include "scaling/geometry.h"

#define UMT5_XXL .text_weights = 5.681e9, .text_flops = 4.74e12, .text_rows = 512
#define T5_CLIP  .text_weights = 4.886e9, .text_flops = 4.75e12, .text_rows = 512
#define QWEN3_4B .text_weights = 4.022e9, .text_flops = 3.72e12
#define QWEN3_8B .text_weights = 8.191e9, .text_flops = 7.11e12
/* Two to three full-size layers of 96 and 128 channels in f32, four frames of a clip at once.
 */
#define WAN_VAE                                                                                \
    .vae_weights = 126.9e6, .vae_pixel_flops = 8.5e6, .vae_pixel_bytes = 3.0 * 4 * 96 * 4
#define FLUX_VAE                                                                               \
    .vae_weights = 83.8e6, .vae_pixel_flops = 10e6, .vae_pixel_bytes = 3.0 * 128 * 4
#define WAN(blocks, of_heads, width_)                                                          \
    .family = DK_FAMILY_WAN, .layers = blocks, .heads = of_heads, .head_dim = 128,             \
    .ffn_dim = width_, .experts = 1, .passes = 2, UMT5_XXL
#define CLIP_16   .token_side = 16, .token_frames = 4, .token_values = 64
#define CLIP_480P .width = 832, .height = 480, .frames = 81
#define PICTURE(side, values)                                                                  \
    .token_side = 16, .token_values = values, .width = side, .height = side, .frames = 1,      \
    .head_dim = 128, .experts = 1

static const dk_model_shape presets[] = {
    {.name = "wan2.1-1.3b",
     WAN(30, 12, 8960),
     CLIP_16,
     CLIP_480P,
     WAN_VAE,
     .steps = 50,
     .other_weights = 27.0e6},
    {.name = "wan2.1-14b",
     WAN(40, 40, 13824),
     CLIP_16,
     CLIP_480P,
     WAN_VAE,
     .steps = 50,
     .other_weights = 238e6},
    {.name = "wan2.1-i2v-14b",
     WAN(40, 40, 13824),
     CLIP_16,
     CLIP_480P,
     WAN_VAE,
     .image_rows = 257,
     .steps = 40,
     .other_weights = 247e6},
    {.name = "wan2.2-5b",
     WAN(30, 24, 14336),
     .token_side = 32,
     .token_frames = 4,
     .token_values = 192,
     .width = 1280,
     .height = 704,
     .frames = 121,
     .vae_weights = 704.7e6,
     .vae_pixel_flops = 14e6,
     .vae_pixel_bytes = 3.0 * 4 * 256 / 4 * 4,
     .steps = 50,
     .other_weights = 92e6},
    {.name = "wan2.2-a14b",
     WAN(40, 40, 13824),
     CLIP_16,
     .width = 1280,
     .height = 720,
     .frames = 81,
     WAN_VAE,
     .steps = 40,
     .other_weights = 238e6},
    {.name = "flux1-dev",
     .family = DK_FAMILY_FLUX1,
     .layers = 19,
     .single_layers = 38,
     .heads = 24,
     .ffn_dim = 12288,
     PICTURE(1024, 64),
     T5_CLIP,
     FLUX_VAE,
     .passes = 1,
     .steps = 28,
     .other_weights = 67e6},
    {.name = "flux1-schnell",
     .family = DK_FAMILY_FLUX1,
     .layers = 19,
     .single_layers = 38,
     .heads = 24,
     .ffn_dim = 12288,
     PICTURE(1024, 64),
     .text_weights = 4.886e9,
     .text_flops = 2.37e12,
     .text_rows = 256,
     FLUX_VAE,
     .passes = 1,
     .steps = 4,
     .other_weights = 57e6},
    {.name = "flux2-klein-4b",
     .family = DK_FAMILY_FLUX2,
     .layers = 5,
     .single_layers = 20,
     .heads = 24,
     .ffn_dim = 9216,
     PICTURE(1024, 128),
     QWEN3_4B,
     .text_rows = 512,
     FLUX_VAE,
     .passes = 1,
     .steps = 4,
     .other_weights = 195e6},
    {.name = "flux2-klein-9b",
     .family = DK_FAMILY_FLUX2,
     .layers = 8,
     .single_layers = 24,
     .heads = 32,
     .ffn_dim = 12288,
     PICTURE(1024, 128),
     QWEN3_8B,
     .text_rows = 512,
     FLUX_VAE,
     .passes = 1,
     .steps = 4,
     .other_weights = 354e6},
    {.name = "qwen-image",
     .family = DK_FAMILY_QWEN_IMAGE,
     .layers = 60,
     .heads = 24,
     .ffn_dim = 12288,
     PICTURE(1328, 64),
     .text_weights = 8.292e9,
     .text_flops = 1.7e12,
     .text_rows = 128,
     .vae_weights = 126.9e6,
     .vae_pixel_flops = 8.5e6,
     .vae_pixel_bytes = 3.0 * 96 * 4,
     .passes = 2,
     .steps = 50,
     .other_weights = 46e6},
    {.name = "z-image",
     .family = DK_FAMILY_Z_IMAGE,
     .layers = 30,
     .refiner_layers = 2,
     .heads = 30,
     .ffn_dim = 10240,
     PICTURE(1024, 64),
     QWEN3_4B,
     .text_rows = 128,
     FLUX_VAE,
     .passes = 1,
     .steps = 8,
     .other_weights = 13e6},
    {.name = "hunyuan-video",
     .family = DK_FAMILY_HUNYUAN,
     .layers = 20,
     .single_layers = 40,
     .heads = 24,
     .head_dim = 128,
     .ffn_dim = 12288,
     .text_rows = 256,
     .token_side = 16,
     .token_frames = 4,
     .token_values = 64,
     .experts = 1,
     .passes = 1,
     .width = 1280,
     .height = 720,
     .frames = 129,
     .steps = 50,
     .text_weights = 8.0e9,
     .text_flops = 4.0e12,
     .vae_weights = 246e6,
     .vae_pixel_flops = 14e6,
     .vae_pixel_bytes = 3.0 * 4 * 128 * 4,
     .other_weights = 130e6},
};

const dk_model_shape *dk_model_preset_find(const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        if (strcmp(presets[i].name, name) == 0) {
            return &presets[i];
        }
    }
    return NULL;
}
