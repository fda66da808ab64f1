#!/usr/bin/env python3
"""Darkroom, PyTorch (with diffusers) and oneDNN side by side: the same shapes, threads and data types, in turns.

    ./dev bench [--only linear,int8,attention,conv,dit,vae,text,tiny] [--dtype bf16|f32] [--threads N] [--rounds N]

Every comparison alternates the sides and reports medians and ratios (above 1: Darkroom is faster). oneDNN is the one that
PyTorch carries, called directly: for linear layers the better of plain and of reordered (blocked) weights, for convolutions
channels-last pictures and reordered weights.
"""
import argparse
import datetime
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONFIG = os.path.join(ROOT, "tests", "configs", "wan2.1-t2v-1.3b")
CAPS = {"avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
        "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "ATEN_CPU_CAPABILITY": "avx512",
                   "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
        "avx512bf16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}}
# rows, columns, depth
LINEAR = [(1800, 1536, 1536), (1800, 8960, 1536), (1800, 1536, 8960), (7800, 1536, 1536), (7800, 8960, 1536),
          (7800, 1536, 8960), (4608, 3072, 12288), (4608, 3840, 3840), (16, 1536, 1536), (16, 8960, 1536)]
ATTENTION = [(12, 1800, 128), (12, 4096, 128), (24, 4608, 128)]
# in, out, height, width, frames; kernel 3 x 3 x 3
CONV = [(192, 192, 60, 104, 4), (96, 96, 240, 416, 4), (384, 384, 60, 104, 3)]


def ours(args, *flags):
    """Median seconds of one pass, as the program reports it."""
    level = ["--cpu", args.cpu] if args.cpu else []
    done = subprocess.run([args.program, "bench", *flags, *level, "--json", "--threads", str(args.threads), "--dtype",
                           args.dtype], capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def timed(function, least=3, seconds=1.0):
    """Median seconds of a call, after one to warm up."""
    start = time.perf_counter()
    function()
    once = time.perf_counter() - start
    times = []
    for _ in range(max(least, min(1000, int(seconds / max(once, 1e-6))))):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare(args, name, facts, our_side, their_side, least=3, onednn=()):
    """Alternates the sides; their_side and those of onednn, whose best counts, are called for every timing."""
    mine, theirs, others, last = [], [], [[] for _ in onednn], None
    for _ in range(args.rounds):
        last = our_side()
        mine.append(last["seconds"])
        theirs.append(timed(their_side, least))
        for times, side in zip(others, onednn):
            times.append(timed(side, least))
    row = {"name": name, **facts, "ours_s": statistics.median(mine), "torch_s": statistics.median(theirs)}
    row["ratio"] = row["torch_s"] / row["ours_s"]
    if others:
        row["onednn_s"] = min(statistics.median(times) for times in others)
        row["onednn_ratio"] = row["onednn_s"] / row["ours_s"]
    row.update({k: last[k] for k in ("gflops", "roofline_share", "peak_memory_mb") if k in last})
    row["torch_peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    beside = f", oneDNN {row['onednn_s']:.4f} s: {row['onednn_ratio']:.2f} x" if others else ""
    print(f"{name:10} {json.dumps(facts):60} ours {row['ours_s']:.4f} s, torch {row['torch_s']:.4f} s: "
          f"{row['ratio']:.2f} x{beside}", flush=True)
    return row


def those_that_run(sides):
    """The oneDNN calls that this processor supports: it has no bf16 below AVX-512."""
    good = []
    for side in sides:
        try:
            side()
            good.append(side)
        except RuntimeError:
            pass
    return good


def onednn_linear(torch, x, w):
    def product(weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return those_that_run([lambda: product(w),
                           lambda packed=[]: product(packed[0] if packed else packed.append(
                               torch.ops.mkldnn._reorder_linear_weight(w, x.shape[0])) or packed[0])])


def onednn_conv(torch, x, layer):
    x = x.to(memory_format=torch.channels_last_3d)
    around = [list(layer.padding), list(layer.stride), list(layer.dilation), 1]

    def call(packed=[]):
        if not packed:
            packed.append(torch.ops.mkldnn._reorder_convolution_weight(layer.weight, *around, list(x.shape))
                          if hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
                          else layer.weight.to(memory_format=torch.channels_last_3d))
        return torch.ops.mkldnn._convolution_pointwise(x, packed[0], layer.bias, *around, "none", [], "")
    return those_that_run([call])


def linear(args, torch, dtype):
    for m, n, k in LINEAR:
        x, w = torch.randn(m, k, dtype=dtype), torch.randn(n, k, dtype=dtype)
        yield compare(args, "linear", {"m": m, "n": n, "k": k},
                      lambda: ours(args, "linear", "--m", str(m), "--n", str(n), "--k", str(k),
                                   "--weights-dtype", args.dtype),
                      lambda: torch.nn.functional.linear(x, w), onednn=onednn_linear(torch, x, w))


def int8(args, torch, dtype):
    """W8A8 against torch in bf16; the quantisation of W is not timed, that of the rows is."""
    for m, n, k in LINEAR[:8] if args.dtype == "bf16" else []:
        x, w = torch.randn(m, k, dtype=dtype), torch.randn(n, k, dtype=dtype)
        plain = ours(args, "linear", "--m", str(m), "--n", str(n), "--k", str(k), "--weights-dtype", args.dtype)
        row = compare(args, "int8", {"m": m, "n": n, "k": k},
                      lambda: ours(args, "linear", "--m", str(m), "--n", str(n), "--k", str(k), "--weights-dtype", "i8"),
                      lambda: torch.nn.functional.linear(x, w))
        row["over_ours"] = plain["seconds"] / row["ours_s"]
        yield row


def attention(args, torch, dtype):
    for heads, length, dim in ATTENTION:
        q, k, v = (torch.randn(1, heads, length, dim, dtype=dtype) for _ in range(3))
        yield compare(args, "attention", {"heads": heads, "seq_len": length, "head_dim": dim},
                      lambda: ours(args, "attention", "--heads", str(heads), "--seq-len", str(length),
                                   "--head-dim", str(dim)),
                      lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v))


def conv(args, torch, dtype):
    for c_in, c_out, height, width, frames in CONV:
        x = torch.randn(1, c_in, frames + 2, height, width, dtype=dtype)
        layer = torch.nn.Conv3d(c_in, c_out, 3, padding=(0, 1, 1), dtype=dtype)
        yield compare(args, "conv3d", {"in": c_in, "out": c_out, "height": height, "width": width, "frames": frames},
                      lambda: ours(args, "conv3d", "--in-channels", str(c_in), "--out-channels", str(c_out),
                                   "--height", str(height), "--width", str(width), "--num-frames", str(frames)),
                      lambda: layer(x), onednn=onednn_conv(torch, x, layer))


def model(args, part, *more):
    return ours(args, "model", "--config", CONFIG, "--part", part, "--width", str(args.width), "--height",
                str(args.height), "--num-frames", str(args.num_frames), "--repeats", "3", "--weights-dtype", args.dtype, *more)


def latent_shape(args):
    return 1, 16, (args.num_frames - 1) // 4 + 1, args.height // 8, args.width // 8


def size(args):
    return {"width": args.width, "height": args.height, "num_frames": args.num_frames}


def dit(args, torch, dtype):
    from diffusers import WanTransformer3DModel
    config = json.load(open(os.path.join(CONFIG, "transformer", "config.json")))
    transformer = WanTransformer3DModel.from_config(config).to(dtype).eval()
    x = torch.randn(latent_shape(args), dtype=dtype)
    text = torch.randn(1, 512, 4096, dtype=dtype)
    t = torch.tensor([500])
    yield compare(args, "dit", size(args), lambda: model(args, "dit"),
                  lambda: transformer(x, timestep=t, encoder_hidden_states=text), 1)
    if args.dtype == "bf16":
        yield compare(args, "dit-int8", size(args), lambda: model(args, "dit", "--quantization", "int8"),
                      lambda: transformer(x, timestep=t, encoder_hidden_states=text), 1)


def text(args, torch, dtype):
    """The shapes of UMT5-xxl in a few layers, 512 tokens."""
    from transformers import UMT5Config, UMT5EncoderModel
    config = json.load(open(os.path.join(CONFIG, "text_encoder", "config.json")))
    config["num_layers"] = 4
    config["vocab_size"] = 1024
    encoder = UMT5EncoderModel(UMT5Config(**config)).to(dtype).eval()
    ids = torch.arange(512).unsqueeze(0) * 37 % 1024
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(os.path.join(folder, "text_encoder"))
        with open(os.path.join(folder, "text_encoder", "config.json"), "w") as file:
            json.dump(config, file)
        yield compare(args, "text", {"layers": 4, "tokens": 512},
                      lambda: ours(args, "model", "--config", folder, "--part", "text", "--tokens", "512", "--weights-dtype",
                                   args.dtype),
                      lambda: encoder(ids), 1)


def vae(args, torch, dtype):
    from diffusers import AutoencoderKLWan
    config = json.load(open(os.path.join(CONFIG, "vae", "config.json")))
    coder = AutoencoderKLWan.from_config(config).to(dtype).eval()
    z = torch.randn(latent_shape(args), dtype=dtype)
    yield compare(args, "vae", size(args), lambda: model(args, "vae"), lambda: coder.decode(z), 1)


def tiny(args, torch, dtype):
    """Prompt to saved file with the embedded model: our whole process against a loaded pipeline."""
    from diffusers import WanPipeline
    from diffusers.utils import export_to_video  # noqa: F401 (its import cost is not timed)
    pipe = WanPipeline.from_pretrained(os.path.join(ROOT, "models", "tiny-wan"), torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    prompt = "a small red circle moving right over a night sky"

    def our_side():
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            subprocess.run([args.program, "generate", "--prompt", prompt, "--output-path", folder, "--dtype", args.dtype,
                            "--threads", str(args.threads), "--log-level", "error"], check=True, cwd=ROOT,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return {"seconds": time.perf_counter() - start}

    def their_side():
        pipe(prompt, height=128, width=128, num_frames=17, num_inference_steps=20, guidance_scale=4.0, output_type="np")

    yield compare(args, "tiny", {"prompt to": "MP4, whole process", "torch": "loaded, to frames"}, our_side, their_side, 1)


def machine(cap):
    name = platform.processor()
    with open("/proc/cpuinfo") as file:
        lines = [line for line in file if line.startswith(("model name", "flags"))]
    flags = lines[1].split() if len(lines) > 1 else []
    level = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags]
    level = level + [f"capped to {cap}"] if cap else level
    return {"cpu": lines[0].split(":", 1)[1].strip() if lines else name, "instruction_sets": level}


def onednn_version(torch):
    found = re.search(r"MKL-DNN v([0-9.]+)", torch.__config__.show())
    return found.group(1) if found else "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=os.path.join(ROOT, "build", "darkroom"))
    parser.add_argument("--only", default="linear,int8,attention,conv,dit,vae,text,tiny")
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "f32"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--num-frames", type=int, default=9)
    parser.add_argument("--out", help="result file (bench/results/<date>-<dtype>.json)")
    parser.add_argument("--cpu", choices=list(CAPS), help="caps the instruction sets of all sides")
    args = parser.parse_args()
    if args.cpu:
        os.environ.update(CAPS[args.cpu])  # read when torch is loaded
    import torch
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    results = {"date": datetime.date.today().isoformat(), "machine": machine(args.cpu), "threads": args.threads, "dtype": args.dtype,
               "rounds": args.rounds, "torch": torch.__version__, "onednn": onednn_version(torch), "rows": []}
    for name in args.only.split(","):
        parts = {"linear": linear, "int8": int8, "attention": attention, "conv": conv, "dit": dit, "vae": vae, "text": text,
                 "tiny": tiny}
        if name not in parts:
            sys.exit(f"bench: --only '{name}', accepted are {', '.join(parts)}")
        results["rows"].extend(parts[name](args, torch, dtype))
    path = args.out or os.path.join(ROOT, "bench", "results", f"{results['date']}-{args.dtype}.json")
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    print(path)


if __name__ == "__main__":
    main()
