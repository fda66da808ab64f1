#!/usr/bin/env python3
"""Writes timesteps.json: the timesteps of diffusers' flow schedulers for many step counts and shifts (diffusers 0.42.1).

Timesteps are truncated to whole numbers, so a difference in the last bit of a sigma shows.
"""
import json
import os

from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

CASES = [(UniPCMultistepScheduler, "unipc"), (DPMSolverMultistepScheduler, "dpm++")]
rows = []
for scheduler_class, sampler in CASES:
    for shift in (1.0, 2.5, 3.0, 5.0, 8.0, 12.0):
        for steps in (*range(1, 31), 40, 49, 50, 64, 100):
            scheduler = scheduler_class(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
            scheduler.set_timesteps(steps)
            rows.append([sampler, shift, scheduler.timesteps.tolist()])
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "timesteps.json"), "w") as file:
    file.write("[" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "]\n")
