#!/usr/bin/env python3
"""Makes the files of this folder: what diffusers' WanVideoToVideoPipeline (0.42.1, torch 2.15.0, one thread, float32)
computes from a picture that is repeated over the frames, with the tiny checkpoint of wan2.1-t2v.

    python tests/golden/wan2.1-edit/make_edit.py     from the root of the tree

Each file holds image_latents (normalised), noise, latents_init (with noise at the first kept step), timesteps (kept),
model_out.N (conditional first), latents.I after kept step I, and frames in 0..1, channels last."""
import json
import os

import numpy
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanVideoToVideoPipeline
from PIL import Image
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKPOINT = os.path.join(HERE, "../wan2.1-t2v/checkpoint")
WIDTH, HEIGHT = 48, 32
CASES = [
    dict(name="unipc", sampler="unipc", prompt="a small boat on the sea", negative_prompt="blurry", num_frames=5,
         num_inference_steps=6, strength=0.7, guidance_scale=4.0, seed=11),
    dict(name="euler", sampler="euler", prompt="a small boat on the sea", negative_prompt="", num_frames=1,
         num_inference_steps=5, strength=0.45, guidance_scale=1.0, seed=12),
    dict(name="whole", sampler="unipc", prompt="a house", negative_prompt="", num_frames=1, num_inference_steps=4,
         strength=1.0, guidance_scale=3.0, seed=13),
]


def picture():
    y, x = numpy.mgrid[0:HEIGHT, 0:WIDTH]
    rgb = numpy.stack([x * 5, y * 7, 128 + 100 * numpy.sin(x / 5) * numpy.cos(y / 4)], axis=-1)
    rgb[8:20, 10:30] = [220, 40, 60]
    return Image.fromarray(rgb.clip(0, 255).astype(numpy.uint8))


def run(case, image):
    base = WanPipeline.from_pretrained(CHECKPOINT, torch_dtype=torch.float32)
    parts = {k: base.components[k] for k in ("tokenizer", "text_encoder", "transformer", "vae", "scheduler")}
    if case["sampler"] == "euler":
        parts["scheduler"] = FlowMatchEulerDiscreteScheduler(shift=base.scheduler.config.flow_shift)
    pipe = WanVideoToVideoPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    out, calls = {}, []
    forward, prepare = pipe.transformer.forward, pipe.prepare_latents

    def traced(*args, **kwargs):
        result = forward(*args, **kwargs)
        calls.append(result[0].clone())
        return result

    def traced_prepare(video, *args, **kwargs):
        mean = pipe.vae.encode(video).latent_dist.mode()
        shape = (1, pipe.vae.config.z_dim, 1, 1, 1)
        out["image_latents"] = ((mean - torch.tensor(pipe.vae.config.latents_mean).view(shape))
                                * (1.0 / torch.tensor(pipe.vae.config.latents_std).view(shape)))
        out["noise"] = torch.randn(mean.shape, generator=torch.Generator().manual_seed(case["seed"]))
        out["latents_init"] = prepare(video, *args, **kwargs)
        return out["latents_init"]

    def after_step(_, i, t, values):
        out[f"latents.{i}"] = values["latents"].clone()
        return {}

    pipe.transformer.forward, pipe.prepare_latents = traced, traced_prepare
    frames = pipe(video=[image] * case["num_frames"], prompt=case["prompt"], negative_prompt=case["negative_prompt"],
                  width=WIDTH, height=HEIGHT, num_inference_steps=case["num_inference_steps"],
                  strength=case["strength"], guidance_scale=case["guidance_scale"],
                  generator=torch.Generator().manual_seed(case["seed"]), output_type="np",
                  callback_on_step_end=after_step).frames
    kept = len([k for k in out if k.startswith("latents.")])
    out["timesteps"] = pipe.scheduler.timesteps[-kept:].float()
    out["sigmas"] = pipe.scheduler.sigmas[-kept - 1:].float()
    out["frames"] = torch.from_numpy(numpy.asarray(frames)).float()
    for n, call in enumerate(calls):
        out[f"model_out.{n}"] = call
    case["kept"] = kept
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(HERE, case["name"] + ".safetensors"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    image = picture()
    image.save(os.path.join(HERE, "picture.png"))
    with torch.no_grad():
        for one in CASES:
            run(one, image)
    with open(os.path.join(HERE, "cases.json"), "w", encoding="utf-8") as file:
        json.dump({"width": WIDTH, "height": HEIGHT, "picture": "picture.png", "cases": CASES}, file, indent=1)
        file.write("\n")
