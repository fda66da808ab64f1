#!/usr/bin/env python3
"""Writes docs/performance.md from bench/performance-notes.md and every result in bench/results.

    bench/report.py [--check]     --check: fails when the page differs
"""
import glob
import json
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "docs", "performance.md")
HEAD = os.path.join(ROOT, "bench", "performance-notes.md")


def label(row):
    facts = {k: v for k, v in row.items() if k not in {
        "name", "ours_s", "torch_s", "ratio", "onednn_s", "onednn_ratio", "over_ours", "gflops", "roofline_share", "peak_memory_mb",
        "torch_peak_memory_mb"}}
    if row["name"] == "int8":
        return ("linear int8 " + " x ".join(str(v) for v in facts.values())
                + f" ({row['over_ours']:.2f} times faster than our {{dtype}})")
    if row["name"] == "text":
        return f"UMT5-xxl's shapes, {facts['layers']} layers, {facts['tokens']} tokens"
    if row["name"] in ("linear", "attention", "conv3d"):
        return f"{row['name']} " + " x ".join(str(v) for v in facts.values())
    if row["name"] == "tiny":
        return "built-in model: prompt to MP4, whole process (torch: a loaded pipeline, to frames)"
    size = f"{facts.get('width')} x {facts.get('height')} x {facts.get('num_frames')}"
    return {"dit": "Wan2.1-1.3B transformer, one call, ", "dit-int8": "the same in int8, ",
            "vae": "Wan2.1 VAE decode, "}[row["name"]] + size


def results():
    for path in sorted(glob.glob(os.path.join(ROOT, "bench", "results", "*.json"))):
        with open(path) as file:
            yield os.path.relpath(path, ROOT), json.load(file)


def tables():
    lines = ["## Results", ""]
    for path, result in results():
        machine, rounds = result["machine"], result["rounds"]
        lines += [f"### {machine['cpu']} ({' '.join(machine['instruction_sets'])}), {result['threads']} threads, {result['dtype']}", "",
                  f"{result['date']}, torch {result['torch']}"
                  + (f", oneDNN {result['onednn']}" if "onednn" in result else "") + f", `{path}`; "
                  + (f"medians of {rounds} rounds in turns." if rounds > 1 else "one round."), "",
                  "| what | ours, s | torch, s | times faster | oneDNN, s | times faster | GFLOP/s | share of roofline |",
                  "|---|---|---|---|---|---|---|---|"]
        for row in result["rows"]:
            gflops = f"{row['gflops']:.0f}" if "gflops" in row else ""
            share = f"{row['roofline_share']:.2f}" if "roofline_share" in row else ""
            onednn = f"{row['onednn_s']:.4g} | {row['onednn_ratio']:.2f}" if "onednn_s" in row else " | "
            lines.append(f"| {label(row).format(dtype=result['dtype'])} | {row['ours_s']:.4g} | {row['torch_s']:.4g} "
                         f"| {row['ratio']:.2f} | {onednn} | {gflops} | {share} |")
        lines.append("")
    return lines


def main():
    with open(HEAD) as file:
        page = file.read().rstrip("\n") + "\n\n" + "\n".join(tables()).rstrip("\n") + "\n"
    if "--check" in sys.argv:
        with open(PAGE) as file:
            if file.read() != page:
                sys.exit("docs/performance.md: differs from bench/results and bench/performance-notes.md, run bench/report.py")
        return
    with open(PAGE, "w") as file:
        file.write(page)


if __name__ == "__main__":
    main()
