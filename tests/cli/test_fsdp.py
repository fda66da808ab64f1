#!/usr/bin/env python3
"""--use-fsdp-inference: weights that ranks share out. The latents are those of one rank in every layout, also with int8
weights; a rank's memory holds its part and two layers; a layer travels while the one before it is computed."""
import json
import os
import re
import struct
import unittest

from command import SMALL, TINY, CommandTest, main, read_safetensors

CLOSE = 1e-4  # of the range of one rank's latents
FSDP = ["--use-fsdp-inference"]
BACKENDS = os.environ.get("DK_TEST_BACKENDS", "shm").split()
MODELS = {  # the small model has three heads and guidance, the built-in one four
    SMALL: ["--width", "32", "--height", "32", "--num-frames", "5", "--num-inference-steps", "3"],
    TINY: ["--width", "64", "--height", "64", "--num-frames", "5", "--num-inference-steps", "3"],
}


def latents_of(path):
    """The last latents of a dump."""
    header, body = read_safetensors(path)
    names = sorted((name for name in header if name.startswith("latents.")), key=lambda n: int(n.split(".")[1]))
    begin, end = header[names[-1]]["data_offsets"]
    return struct.unpack(f"<{(end - begin) // 4}f", body[begin:end])


class Ranks(CommandTest):
    """Latents of runs on one rank and on several."""
    by_one_rank = {}  # which many layouts are compared with

    def generate(self, model, *more, seed=1, **options):
        path = self.path(f"dump-{len(os.listdir(self.folder))}.safetensors")
        done = self.passes("generate", "--model-path", model, *MODELS[model], "--prompt", "a red ball", "--negative-prompt", "blur",
                           "--seed", seed, "--output-path", self.path("out"), "--dump-tensors", path,
                           *more, **options)
        return latents_of(path), done

    def compare(self, model, *layout, alone=("--dtype", "f32")):
        if (model, alone) not in self.by_one_rank:
            self.by_one_rank[model, alone] = self.generate(model, *alone)[0]
        wanted = self.by_one_rank[model, alone]
        got, done = self.generate(model, *alone, *layout, *FSDP)
        most = max(abs(a - b) for a, b in zip(wanted, got))
        self.assertLessEqual(most, CLOSE * (max(wanted) - min(wanted)), layout)
        return done


class Sharded(Ranks):
    def test_sequence(self):
        for backend in BACKENDS:
            for model in MODELS:
                with self.subTest(backend=backend, model=model):
                    self.compare(model, "--num-gpus", "2", "--sp-degree", "2", "--distributed-backend", backend)

    def test_three_ranks_part_unevenly(self):
        self.compare(SMALL, "--num-gpus", "3", "--sp-degree", "3")
        self.compare(TINY, "--num-gpus", "3", "--ring-degree", "3")

    def test_branches(self):
        for model in MODELS:
            self.compare(model, "--num-gpus", "2", "--enable-cfg-parallel")
        # One pass without guidance: the second branch's rank has nothing to compute and gathers all the same.
        self.compare(SMALL, "--num-gpus", "2", "--enable-cfg-parallel", alone=("--dtype", "f32", "--guidance-scale", "1"))

    def test_all_directions(self):
        self.compare(TINY, "--num-gpus", "4", "--tp-size", "2", "--sp-degree", "2")
        self.compare(SMALL, "--num-gpus", "4", "--tp-size", "2", "--ring-degree", "2")
        self.compare(TINY, "--num-gpus", "4", "--enable-cfg-parallel", "--sp-degree", "2", "--hsdp-shard-dim", "2")
        self.compare(TINY, "--num-gpus", "4", "--enable-cfg-parallel", "--sp-degree", "2")

    def test_int8(self):
        """Rows keep their bits, and so do sums of whole numbers: what differs is the attention's order of sums."""
        alone = ("--quantization", "int8")
        whole, _ = self.generate(TINY, *alone, "--num-gpus", "2", "--sp-degree", "2")
        shared, done = self.generate(TINY, *alone, "--num-gpus", "2", "--sp-degree", "2", *FSDP, "--log-level", "info")
        self.assertEqual(whole, shared)
        self.assertRegex(done.stderr, r"int8: 60 layers, .* 0 kept as stored")
        some = (*alone, "--quantization-max-error", "0.0108")  # some layers stay as stored
        whole, _ = self.generate(TINY, *some, "--num-gpus", "2", "--sp-degree", "2")
        shared, done = self.generate(TINY, *some, "--num-gpus", "2", "--sp-degree", "2", *FSDP, "--log-level", "info")
        self.assertEqual(whole, shared)
        kept = int(re.search(r"(\d+) kept as stored", done.stderr).group(1))
        self.assertTrue(0 < kept < 60, kept)

    def test_what_is_told(self):
        _, done = self.generate(TINY, "--num-gpus", "2", *FSDP, "--log-level", "info")
        told = re.search(r"transformer: 6 layers of (\S+) MB are shared out among 2 ranks; this one keeps (\S+) MB, and at work "
                         r"has (\S+) MB", done.stderr)
        whole, kept, most = map(float, told.groups())
        self.assertAlmostEqual(kept, whole / 2, delta=0.2)
        self.assertAlmostEqual(most, whole / 2 + whole / 3, delta=0.3)

    def test_layers_travel_under_compute(self):
        """On a thread of their own, and so in a lane of their own; each is asked for a layer ahead."""
        self.generate(TINY, "--width", "192", "--height", "192", "--num-gpus", "2", "--sp-degree", "2", *FSDP, "--trace-path",
                      self.path("trace.json"))
        for rank in range(2):
            with open(self.path(f"trace-{rank}.json"), encoding="utf-8") as file:
                events = json.load(file)
            lanes = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
            gathers = [e for e in events if e["ph"] == "X" and lanes[e["tid"]] == "communication of weights"]
            self.assertEqual({(e["name"], e["args"]["group"]) for e in gathers}, {("all_gather", "fsdp")})
            # Six layers in each pass, of two texts and of three steps; and the first layer of a pass that never comes.
            self.assertEqual(len(gathers), 6 * (2 + 3) + 1)
            ahead = sum(any(self.overlap(e, o) for o in events if o["ph"] == "X" and lanes[o["tid"]] == "compute")
                        for e in gathers)
            self.assertGreater(ahead, 0)  # with a core for each rank, its two threads take turns

    @staticmethod
    def overlap(a, b):
        return a["ts"] < b["ts"] + b["dur"] and b["ts"] < a["ts"] + a["dur"]

    def test_refused(self):
        base = ["generate", "--prompt", "x", "--output-path", self.path("out")]
        self.fails(2, ["use_fsdp_inference shares out weights", "tp 2", "sp_degree from 2"], *base, *FSDP, "--num-gpus", "2", "--tp-size", "2")
        self.fails(2, ["hsdp_shard_dim is 4, but 6 ranks", "accepted are 2, 3, 6"], *base, *FSDP, "--num-gpus", "6",
                   "--sp-degree", "3", "--enable-cfg-parallel", "--hsdp-shard-dim", "4")
        for server in (["serve"], ["serve", "--print-topology"], ["generate", "--print-topology"]):
            self.fails(2, ["use_fsdp_inference shares out weights", "tp 2", "sp_degree from 2"], *server, *FSDP, "--num-gpus", "2", "--tp-size", "2")
            self.fails(2, ["hsdp_shard_dim is 3, but use_fsdp_inference is off"], *server, "--num-gpus", "3", "--hsdp-shard-dim", "3")
        told = self.passes(*base, "--width", "64", "--height", "64", "--num-frames", "1", "--num-inference-steps", "1", *FSDP).stderr
        self.assertIn("use_fsdp_inference changes nothing", told)
        self.fails(2, ["hsdp_shard_dim is 2, but use_fsdp_inference is off"], *base, "--num-gpus", "2", "--hsdp-shard-dim", "2")

    def test_groups_are_drawn(self):
        drawn = self.passes("generate", "--print-topology", *FSDP, "--num-gpus", "4", "--enable-cfg-parallel", "--hsdp-shard-dim", "2").stdout
        self.assertIn("fsdp     [0 1] [2 3]\n", drawn)


@unittest.skipUnless(os.environ.get("DK_TEST_XPU"), "this build has no module")
class OnXpu(Ranks):
    """The module's ring takes weights from layers that are there, in the type that it multiplies: the files of one model are
    F32, the other's BF16."""

    def test_xpu(self):
        for model in MODELS:
            for more in ([], ["--dit-layerwise-offload"], ["--dit-cpu-offload", "--pin-cpu-memory"]):
                with self.subTest(model=model, more=more):
                    self.compare(model, "--num-gpus", "2", "--sp-degree", "2", *more, alone=("--device", "xpu:cpu", "--dtype", "f32"))
            self.compare(model, "--num-gpus", "2", "--enable-cfg-parallel", alone=("--device", "xpu:cpu", "--dtype", "f32"))

    def test_bf16(self):
        """The same products, in another order of sums: as with whole weights."""
        alone = ("--device", "xpu:cpu", "--num-gpus", "2", "--sp-degree", "2")
        for model in MODELS:
            whole, _ = self.generate(model, *alone)
            shared, done = self.generate(model, *alone, *FSDP, "--explain")
            self.assertRegex(done.stderr, r"offload: \d+ copies")
            most = max(abs(a - b) for a, b in zip(whole, shared))
            self.assertLessEqual(most, 0.02 * (max(whole) - min(whole)))

    def test_quantised_is_refused(self):
        self.fails(2, ["use_fsdp_inference with quantization 'int8' on xpu:cpu", "int8 with device cpu"], "generate", "--model-path",
                   TINY, *MODELS[TINY], "--prompt", "x", "--output-path", self.path("out"), "--device", "xpu:cpu", "--num-gpus", "2",
                   *FSDP, "--quantization", "int8")


if __name__ == "__main__":
    main()
