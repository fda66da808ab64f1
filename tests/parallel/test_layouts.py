#!/usr/bin/env python3
"""Results do not depend on the layout: in f32 the last latents of every layout are one rank's within 1e-4 of their range, over every
backend; the first noise and the pixels of one rank's layout are the same bits."""
import unittest

from ranks import (BACKENDS, BUILT_IN, FULL, HEADS_FOUR, LAYOUTS, SMALL, generate, largest_difference, main, needs_xccl,
                   needs_xpu, one_rank)

TOLERANCE = 1e-4  # of the range; sums of f32 in another order
MAIN = ["ulysses 2", "ring 2", "tp 2", "cfg 2"]
ALL = [layout for layout in LAYOUTS if layout != "one rank"]


class Layouts(unittest.TestCase):
    def same(self, model, layout, backend, *more, steps=3):
        flags = ("--model-path", model, "--dtype", "f32", "--num-inference-steps", steps, *more)
        with self.subTest(model=model.rsplit("/", 1)[-1], layout=layout, backend=backend, more=more):
            ours, one = generate(*flags, layout=layout, backend=backend), one_rank(*flags)
            self.assertEqual(ours.tensors["latents_init"], one.tensors["latents_init"])
            self.assertEqual(set(ours.tensors), set(one.tensors))
            worst = {name: largest_difference(ours.tensors[name], one.tensors[name]) for name in ("vae_in", "frames")}
            self.assertLess(worst["vae_in"], TOLERANCE)
            return worst["vae_in"]

    def every(self, model, backend, layouts, *more):
        worst = [self.same(model, layout, backend, *more) for layout in layouts]
        print(f"{model.rsplit('/', 2)[-1]} {backend} {' '.join(more)}: " +
              ", ".join(f"{layout} {w:.1e}" for layout, w in zip(layouts, worst) if w is not None), flush=True)


class OnCores(Layouts):
    def test_small_model(self):
        for backend in BACKENDS:
            layouts = [layout for layout in ALL if layout not in HEADS_FOUR and (FULL or backend == "shm" or LAYOUTS[layout][0] < 6)]
            self.every(SMALL, backend, layouts)

    def test_built_in_model(self):
        for backend in BACKENDS:
            self.every(BUILT_IN, backend, ALL if FULL or backend == "shm" else ["ulysses 2 x ring 2", "tp 2 x ulysses 2"])

    def test_longer_clip(self):
        """37 frames of 48 x 80: 150 rows for three ranks, 10 frames of latents."""
        flags = ("--num-frames", "37", "--width", "48", "--height", "80")
        for layout in ("ulysses 3", "ring 3", "tp 2 x ring 2"):
            self.same(SMALL, layout, "shm", *flags)

    def test_fewer_rows_than_ranks(self):
        """16 x 16 pixels of one frame are one row: nothing to share, and refused before anything is computed."""
        flags = ("--num-frames", "1", "--width", "16", "--height", "16")
        for layout in ("tp 2", "cfg 2"):
            self.same(SMALL, layout, "shm", *flags)
        for layout in ("ulysses 2", "ring 2"):
            with self.assertRaisesRegex(AssertionError, "(?s)ended with 2:.*1 tokens, fewer than the 2 ranks"):
                generate("--model-path", SMALL, *flags, layout=layout)


@needs_xpu
@needs_xccl
class OnDevices(Layouts):
    """The XPU's software on cores, where oneCCL carries what is on the device."""

    def test_small_model(self):
        self.every(SMALL, "xccl", [layout for layout in ALL if layout not in HEADS_FOUR] if FULL else MAIN, "--device", "xpu:cpu")

    @unittest.skipUnless(FULL, "takes minutes: DARKROOM_TEST_FULL=1 asks for it")
    def test_built_in_model(self):
        self.every(BUILT_IN, "xccl", [*MAIN, "ulysses 2 x ring 2", "tp 2 x ulysses 2"], "--device", "xpu:cpu")


main()
