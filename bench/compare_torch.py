#!/usr/bin/env python3
"""Darkroom and PyTorch (with diffusers) side by side: the same shapes, threads and data types, in turns.

    ./dev bench torch [--only linear,attention,conv,dit,vae,tiny] [--dtype bf16|f32] [--threads N] [--rounds N]

Every comparison alternates the two sides and reports medians and their ratio (above 1: Darkroom is faster).
"""
import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONFIG = os.path.join(ROOT, "tests", "configs", "wan2.1-t2v-1.3b")
LINEAR = [(1800, 1536, 1536), (1800, 8960, 1536), (1800, 1536, 8960), (7800, 1536, 1536)]
ATTENTION = [(12, 1800, 128), (12, 4096, 128)]
CONV = [(96, 96, 320, 480), (192, 192, 160, 240), (384, 384, 80, 120)]  # in, out, height, width; kernel 3 x 3 x 3


def ours(args, *flags):
    """Median seconds of one pass, as the program reports it."""
    done = subprocess.run([args.program, "bench", *flags, "--json", "--threads", str(args.threads), "--dtype", args.dtype],
                          capture_output=True, text=True, cwd=ROOT)
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


def compare(args, name, facts, our_side, their_side, least=3):
    """Alternates both sides; their_side is called for every timing."""
    mine, theirs, last = [], [], None
    for _ in range(args.rounds):
        last = our_side()
        mine.append(last["seconds"])
        theirs.append(timed(their_side, least))
    row = {"name": name, **facts, "ours_s": statistics.median(mine), "torch_s": statistics.median(theirs)}
    row["ratio"] = row["torch_s"] / row["ours_s"]
    row.update({k: last[k] for k in ("gflops", "roofline_share", "peak_memory_mb") if k in last})
    row["torch_peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:10} {json.dumps(facts):60} ours {row['ours_s']:.4f} s, torch {row['torch_s']:.4f} s: "
          f"{row['ratio']:.2f} x", flush=True)
    return row


def linear(args, torch, dtype):
    for m, n, k in LINEAR:
        x, w = torch.randn(m, k, dtype=dtype), torch.randn(n, k, dtype=dtype)
        yield compare(args, "linear", {"m": m, "n": n, "k": k},
                      lambda: ours(args, "linear", "--m", str(m), "--n", str(n), "--k", str(k),
                                   "--weights-dtype", args.dtype),
                      lambda: torch.nn.functional.linear(x, w))


def attention(args, torch, dtype):
    for heads, length, dim in ATTENTION:
        q, k, v = (torch.randn(1, heads, length, dim, dtype=dtype) for _ in range(3))
        yield compare(args, "attention", {"heads": heads, "seq_len": length, "head_dim": dim},
                      lambda: ours(args, "attention", "--heads", str(heads), "--seq-len", str(length),
                                   "--head-dim", str(dim)),
                      lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v))


def conv(args, torch, dtype):
    for c_in, c_out, height, width in CONV:
        x = torch.randn(1, c_in, 3, height, width, dtype=dtype)
        layer = torch.nn.Conv3d(c_in, c_out, 3, padding=(0, 1, 1), dtype=dtype)
        yield compare(args, "conv3d", {"in": c_in, "out": c_out, "height": height, "width": width},
                      lambda: ours(args, "conv3d", "--in-channels", str(c_in), "--out-channels", str(c_out),
                                   "--height", str(height), "--width", str(width)),
                      lambda: layer(x))


def model(args, part):
    return ours(args, "model", "--config", CONFIG, "--part", part, "--width", str(args.width), "--height",
                str(args.height), "--num-frames", str(args.num_frames), "--repeats", "3", "--weights-dtype", args.dtype)


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


def machine():
    name = platform.processor()
    with open("/proc/cpuinfo") as file:
        lines = [line for line in file if line.startswith(("model name", "flags"))]
    flags = lines[1].split() if len(lines) > 1 else []
    level = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags]
    return {"cpu": lines[0].split(":", 1)[1].strip() if lines else name, "instruction_sets": level}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=os.path.join(ROOT, "build", "darkroom"))
    parser.add_argument("--only", default="linear,attention,conv,dit,vae,tiny")
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "f32"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--num-frames", type=int, default=9)
    parser.add_argument("--out", help="result file (bench/results/<date>-torch-<dtype>.json)")
    args = parser.parse_args()
    import torch
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    results = {"date": datetime.date.today().isoformat(), "machine": machine(), "threads": args.threads, "dtype": args.dtype,
               "rounds": args.rounds, "torch": torch.__version__, "rows": []}
    for name in args.only.split(","):
        results["rows"].extend({"linear": linear, "attention": attention, "conv": conv, "dit": dit, "vae": vae,
                                "tiny": tiny}[name](args, torch, dtype))
    path = args.out or os.path.join(ROOT, "bench", "results", f"{results['date']}-torch-{args.dtype}.json")
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    print(path)


if __name__ == "__main__":
    main()
