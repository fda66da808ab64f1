/* Devices and links. Each constant says where it comes from; docs/parallel.md repeats the table
   and shows what follows from it.

   call_us: 50. A collective of oneCCL blocks its caller for 17 to 56 us whatever its size (vllm
   issue 54766); xDiT's times of FLUX.1 on one, two and four H100 give 47.

   conv_tflops: an eighth of the peak, where no figure is at hand: on a B60 SGLang needs 0.95 s
   besides the steps of a Z-Image picture (xpu_b60.json), of which 10.5 TFLOP are the decoder.
 */
#include "scaling/machine.h"

#include <string.h>

const dk_machine dk_machine_presets[] = {
    {.name = "b60",
     .source =
         "Arc Pro B60: 98.3 TFLOP/s bf16 peak, 456 GB/s; SGLang's steps give 60 (Z-Image) "
         "and, with more attention, 44 (Wan); pairs of cards 22 GB/s (vllm 53796), "
         "uploads 28 over PCIe 5 x8 (vllm 54766)",
     .linear_tflops = 60,
     .attention_tflops = 40,
     .conv_tflops = 12,
     .memory_gb = 24,
     .memory_gbps = 456,
     .upload_gbps = 28,
     .link_gbps = 22,
     .call_us = 50,
     .net_gbps = 11,
     .net_call_us = 60,
     .ranks_per_host = 8},
    {.name = "b580",
     .source = "Arc B580: 116.7 TFLOP/s peak, 12 GB; the B60's shares of peak; its link",
     .linear_tflops = 71,
     .attention_tflops = 47,
     .conv_tflops = 14,
     .memory_gb = 12,
     .memory_gbps = 456,
     .upload_gbps = 14,
     .link_gbps = 11,
     .call_us = 50,
     .net_gbps = 11,
     .net_call_us = 60,
     .ranks_per_host = 4},
    {.name = "b70",
     .source = "Arc Pro B70: 183.5 TFLOP/s peak, 608 GB/s; the B60's shares of peak; 10.3 GB/s "
               "between a pair (llama.cpp 27198)",
     .linear_tflops = 112,
     .attention_tflops = 75,
     .conv_tflops = 23,
     .memory_gb = 32,
     .memory_gbps = 608,
     .upload_gbps = 28,
     .link_gbps = 10.3,
     .call_us = 50,
     .net_gbps = 11,
     .net_call_us = 60,
     .ranks_per_host = 4},
    {.name = "max1550",
     .source = "Max 1550: 839 TFLOP/s peak, 273 measured in products (Lockwood), attention at "
               "60 % of that as on the B60; Xe Link by its specification, a rank is a card",
     .linear_tflops = 273,
     .attention_tflops = 164,
     .conv_tflops = 105,
     .memory_gb = 128,
     .memory_gbps = 3277,
     .upload_gbps = 50,
     .link_gbps = 80,
     .call_us = 50,
     .net_gbps = 50,
     .net_call_us = 60,
     .ranks_per_host = 4},
    {.name = "h100",
     .source = "H100 SXM: 989 TFLOP/s peak, SGLang's FLUX.1 step of 129 ms gives 577; NVLink 4 "
               "gives 370 of 450 GB/s (nccl-tests 212)",
     .linear_tflops = 577,
     .attention_tflops = 577,
     .conv_tflops = 124,
     .memory_gb = 80,
     .memory_gbps = 3350,
     .upload_gbps = 50,
     .link_gbps = 370,
     .call_us = 50,
     .net_gbps = 370,
     .net_call_us = 60,
     .ranks_per_host = 8},
    {.name = "h800",
     .source = "H800 SXM: an H100 with NVLink at 200 GB/s each way, of which the same share",
     .linear_tflops = 577,
     .attention_tflops = 577,
     .conv_tflops = 124,
     .memory_gb = 80,
     .memory_gbps = 3350,
     .upload_gbps = 50,
     .link_gbps = 164,
     .call_us = 50,
     .net_gbps = 164,
     .net_call_us = 60,
     .ranks_per_host = 8},
    {.name = "a100",
     .source = "A100 SXM: 312 TFLOP/s peak, the H100's share; NVLink 3 gives 200 to 240 of 300 "
               "GB/s (nccl-tests 149)",
     .linear_tflops = 182,
     .attention_tflops = 182,
     .conv_tflops = 39,
     .memory_gb = 80,
     .memory_gbps = 2039,
     .upload_gbps = 25,
     .link_gbps = 220,
     .call_us = 50,
     .net_gbps = 160,
     .net_call_us = 60,
     .ranks_per_host = 8},
    {.name = "l20",
     .source = "L20: 119.5 TFLOP/s peak, xDiT's HunyuanVideo on one card gives 100; PCIe 4 x16 "
               "between peers at 20 of 32 GB/s",
     .linear_tflops = 100,
     .attention_tflops = 100,
     .conv_tflops = 15,
     .memory_gb = 48,
     .memory_gbps = 864,
     .upload_gbps = 25,
     .link_gbps = 20,
     .call_us = 50,
     .net_gbps = 20,
     .net_call_us = 60,
     .ranks_per_host = 8},
    {.name = "4090",
     .source = "RTX 4090: 165 TFLOP/s peak, diffusers' Wan step of 30.5 s gives 110; no peer "
               "access, so that everything goes through the host's memory: 5 GB/s for each of "
               "eight cards, weights 18 GB/s for each while all load them; both are fitted to "
               "LightX2V's times with and without guidance",
     .linear_tflops = 110,
     .attention_tflops = 110,
     .conv_tflops = 20,
     .memory_gb = 24,
     .memory_gbps = 1008,
     .upload_gbps = 18,
     .link_gbps = 5,
     .call_us = 50,
     .net_gbps = 5,
     .net_call_us = 60,
     .ranks_per_host = 8},
    {.name = "cpu",
     .source =
         "a socket of 16 Zen 5 cores with AVX512_BF16 as a rank: eight times the 0.87 and "
         "0.75 TFLOP/s that two cores sustain; shared memory; 25 Gbit/s between hosts",
     .linear_tflops = 7,
     .attention_tflops = 6,
     .conv_tflops = 7,
     .memory_gb = 192,
     .memory_gbps = 300,
     .upload_gbps = 300,
     .link_gbps = 20,
     .call_us = 30,
     .net_gbps = 3,
     .net_call_us = 60,
     .ranks_per_host = 2,
     .adds_parts = true},
};
const int dk_machine_preset_count = sizeof dk_machine_presets / sizeof *dk_machine_presets;

const dk_machine *dk_machine_preset_find(const char *name)
{
    for (int i = 0; i < dk_machine_preset_count; i++) {
        if (strcmp(dk_machine_presets[i].name, name) == 0) {
            return &dk_machine_presets[i];
        }
    }
    return NULL;
}

dk_status dk_machine_calibrate(dk_machine *machine, const dk_geometry *geometry, double seconds,
                               dk_error *err)
{
    double passes = geometry->passes;
    double flops = dk_geometry_linear_flops(geometry) + dk_geometry_attention_flops(geometry);
    double rest = dk_geometry_row_bytes(geometry) / (machine->memory_gbps * 1e9);
    if (!(seconds > passes * rest)) {
        return dk_fail(err, DK_INVALID,
                       "%g seconds for a step, but memory at %g GB/s alone takes %g", seconds,
                       machine->memory_gbps, passes * rest);
    }
    machine->linear_tflops = passes * flops / (seconds - passes * rest) * 1e-12;
    machine->attention_tflops = machine->linear_tflops;
    return DK_OK;
}
