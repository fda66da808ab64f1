#!/usr/bin/env python3
"""Layouts together with everything else that a request or an engine may ask for. The cases are generated: every pair of values of two
of AXES appears in one of them at least. A case is compared with one rank of the same settings.

In f32 the bound is test_layouts' 1e-4 of the range, on every device from the CPU's one rank. What rounds (bf16, int8, sage) rounds other sums on other ranks: int8 has a
scale per row of what a rank has, which with tp is a part of the row. Two such results are as far from the exact one as the
rounding makes each of them, and so from each other at most twice that (the triangle's inequality). That is the bound: the
measured distance of one rank's rounded latents from its f32 ones, doubled."""
import itertools
import os
import unittest

from ranks import (BACKENDS, FULL, PICTURE, SMALL, generate, has_xpu, largest_difference, main, needs_full, one_rank, rms_difference)

TOLERANCE = 1e-4
MASK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mask.png")
AXES = {
    "layout": ["ulysses 2", "ring 2", "tp 2", "cfg 2", "tp 2 x ring 2", "cfg 2 x ulysses 2", "ulysses 2, sharded"],
    "device": ["cpu", "xpu:cpu"],
    "backend": ["shm", "mpi", "xccl"],
    "numbers": ["f32", "bf16", "int8", "sage"],
    "weights": ["stay", "layers come and go", "all come and go", "encoder on the host"],
    "input": ["text", "picture", "picture and mask"],
    "outputs": ["1", "2"],
    "sampler": ["euler", "unipc", "dpm++"],
}
FLAGS = {
    "f32": ["--dtype", "f32"],
    "bf16": ["--dtype", "bf16"],
    "int8": ["--quantization", "int8", "--quantization-max-error", "1"],
    "sage": ["--attention-backend", "sage"],
    "stay": [],
    "layers come and go": ["--dit-layerwise-offload", "--offload-budget-mb", "1"],
    "all come and go": ["--text-encoder-cpu-offload", "--image-encoder-cpu-offload", "--vae-cpu-offload", "--dit-cpu-offload"],
    "encoder on the host": ["--text-encoder-device", "cpu"],
    "text": [],
    "picture": ["--image-path", PICTURE, "--strength", "0.7"],
    "picture and mask": ["--image-path", PICTURE, "--mask-path", MASK, "--strength", "0.7"],
}


def is_possible(case):
    """Weights come and go on a device alone, and what is on a device goes through oneCCL or MPI."""
    if case["device"] == "cpu":
        return case["weights"] == "stay"
    return case["backend"] != "shm"


def pairs_of(case):
    return set(itertools.combinations(sorted(case.items()), 2))


def cases(axes):
    """Greedy: the next case is the first of those that add most pairs; the same cases every time."""
    possible = [case for case in (dict(zip(axes, values)) for values in itertools.product(*axes.values())) if is_possible(case)]
    sets = [pairs_of(case) for case in possible]
    open_pairs, chosen = set().union(*sets), []
    while open_pairs:
        best = max(range(len(sets)), key=lambda i: len(sets[i] & open_pairs))
        open_pairs -= sets[best]
        chosen.append(possible[best])
    return chosen


def flags_of(case):
    flags = ["--model-path", SMALL, "--num-inference-steps", "4", "--num-frames", "5", "--device", case["device"],
             "--num-outputs-per-prompt", case["outputs"], "--sampler", case["sampler"]]
    for axis in ("numbers", "weights", "input"):
        flags += FLAGS[case[axis]]
    return flags


class Matrix(unittest.TestCase):
    def check(self, case):
        flags, in_f32 = flags_of(case), flags_of({**case, "numbers": "f32", "device": "cpu", "weights": "stay"})
        ours = generate(*flags, layout=case["layout"], backend=case["backend"])
        one = one_rank(*in_f32 if case["numbers"] == "f32" else flags)
        self.assertEqual(set(ours.tensors), set(one.tensors))
        self.assertEqual(len(ours.pixels), int(case["outputs"]))
        if case["numbers"] == "f32":
            far = largest_difference(ours.latents, one.latents)
            self.assertLess(far, TOLERANCE)
            return far, TOLERANCE
        exact = one_rank(*in_f32)
        bound = 2 * rms_difference(one.latents, exact.latents)
        far = rms_difference(ours.latents, one.latents)
        self.assertGreater(bound, 0, "nothing was rounded: this case does not test what it says")
        self.assertLessEqual(far, bound)
        return far, bound

    def run_cases(self, axes):
        for case in cases(axes):
            with self.subTest(**case):
                far, bound = self.check(case)
                print(f"{', '.join(case.values())}: {far:.1e} of {bound:.1e}", flush=True)

    def test_on_cores(self):
        self.run_cases({**AXES, "device": ["cpu"], "backend": [b for b in ("shm", "mpi") if b in BACKENDS]})

    @unittest.skipUnless(has_xpu() and "xccl" in BACKENDS, "this build has no module for Intel GPUs")
    def test_on_devices(self):
        few = {**AXES, "device": ["xpu:cpu"], "backend": ["xccl"], "layout": ["ring 2", "tp 2"], "input": ["text", "picture and mask"],
               "sampler": ["unipc"]}
        few = few if FULL else {**few, "numbers": ["f32"], "weights": AXES["weights"][:3]}
        self.run_cases(few)

    @needs_full
    def test_all_pairs(self):
        self.run_cases({**AXES, "backend": BACKENDS, "device": ["cpu", "xpu:cpu"] if has_xpu() else ["cpu"]})


main()
