#!/usr/bin/env python3
"""Writes models/tiny-wan/selftest.safetensors from the embedded model's golden case 'still': the first latent, and the
last latent and the 8-bit frames that diffusers makes of it in f32 (tests/golden/demo).

    python3 tools/make_selftest.py
"""
import json
import os
import struct

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMES = {"initial_latents": "latents_init", "final_latents": "final_latents", "frames": "frames"}


def main():
    with open(os.path.join(ROOT, "tests/golden/demo/cases.json"), encoding="utf-8") as file:
        case = next(c for c in json.load(file) if c["name"] == "still")
    with open(os.path.join(ROOT, "tests/golden/demo/still.safetensors"), "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header, data = json.loads(file.read(size)), file.read()
    new, body = {}, b""
    for name, as_name in NAMES.items():
        entry = header[name]
        start, end = entry["data_offsets"]
        new[as_name] = dict(entry, data_offsets=[len(body), len(body) + end - start])
        body += data[start:end]
    new["__metadata__"] = {
        "prompt": case["prompt"], "seed": str(case["seed"]), "width": str(case["width"]), "height": str(case["height"]),
        "num_frames": str(case["frames"]), "num_inference_steps": str(case["steps"]),
        "guidance_scale": str(case["guidance"]), "flow_shift": str(case["flow_shift"])}
    text = json.dumps(new, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(ROOT, "models/tiny-wan/selftest.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + body)


main()
