#!/usr/bin/env python3
"""darkroom plan: layouts of several devices, by preset, by folder and by measured links."""
import itertools
import json
import os
import re
import unittest

from command import ROOT, TINY, CommandTest, main, run

CONFIGS = os.path.join(ROOT, "tests/configs")


class Plan(CommandTest):
    def plan(self, *args):
        return json.loads(self.passes("plan", "--json", *args).stdout)

    def test_text(self):
        told = self.passes("plan", "--model", "wan2.1-1.3b", "--num-gpus", "4").stdout
        for text in ("32760 tokens", "2 passes per step", "a projection, not a measurement", "cfg 2 x ", "what limits",
                     "--num-gpus 4 --enable-cfg-parallel"):
            self.assertIn(text, told)

    def test_every_choice_has_values(self):
        page = self.passes("parameters").stdout
        models, devices = (re.search(rf"\| `{name}` \| ([^|]+) \|", page)[1].strip().split(", ") for name in ("model", "device_preset"))
        self.assertGreater(len(models), 10)
        for model in models:
            found = self.plan("--model", model, "--num-gpus", 2, "--device-preset", "h100")
            self.assertGreater(found["layouts"][0]["speedup"], 1, model)
        self.assertGreater(len(devices), 8)
        for device in devices:
            self.assertEqual(self.plan("--model", "z-image", "--device-preset", device)["device"]["name"], device)

    def test_what_is_counted(self):
        """Ulysses 2 of Wan 1.3B: 60 times a tensor of 32,760 x 1536 bf16."""
        found = self.plan("--model", "wan2.1-1.3b", "--num-gpus", 2, "--ulysses-degree", 2)
        (layout,) = found["layouts"]
        self.assertEqual(layout["traffic"]["ulysses"]["bytes"], 60 * 32760 * 1536 * 2)
        self.assertEqual(layout["flags"], "--num-gpus 2 --ulysses-degree 2 --ring-degree 1")
        self.assertAlmostEqual(sum(layout["exposed_seconds"].values()), layout["step_seconds"], 9)
        self.assertAlmostEqual(layout["speedup"] / 2, layout["efficiency"], 9)
        self.assertEqual(layout["memory_bytes"]["total"],
                         sum(v for k, v in layout["memory_bytes"].items() if k != "total"))

    def test_more_ranks_than_are_started(self):
        flags = ["plan", "--model", "wan2.1-1.3b", "--goal", "throughput", "--num-gpus"]
        words = "up to 64 ranks are started together"
        self.assertIn(words, self.passes(*flags, 128).stdout)
        self.assertNotIn(words, self.passes(*flags, 64).stdout)

    def test_order(self):
        steps = [c["step_seconds"] for c in self.plan("--model", "wan2.1-1.3b", "--num-gpus", 8, "--layouts", 100)["layouts"]]
        for a, b in zip(steps, steps[1:]):
            self.assertLess(a, b * 1.03)
        for words in (["--help"], ["--model", "wan2.1-1.3b", "--num-gpus", 8]):
            self.assertRegex(self.passes("plan", *words).stdout, r"in\s+classes\s+2 %\s+wide")
        replicas = self.plan("--model", "wan2.1-1.3b", "--num-gpus", 8, "--goal", "throughput", "--link-gbps", 0.5)["layouts"][0]
        self.assertGreaterEqual(replicas["dp_size"], 4)
        degrees = ("--num-gpus", 8, "--ulysses-degree", 8)
        (beside,), (waits,) = (self.plan("--model", "wan2.1-1.3b", *degrees, *more)["layouts"] for more in ([], ["--no-overlap"]))
        self.assertGreater(waits["step_seconds"], beside["step_seconds"])

    def test_single_values(self):
        given = self.plan("--model", "flux1-dev", "--num-gpus", 2, "--tflops", 10, "--memory-gb", 48, "--link-gbps", 5,
                          "--link-latency-us", 7, "--net-gbps", 2, "--net-latency-us", 9)["device"]
        for name, value in (("linear_tflops", 10), ("attention_tflops", 10), ("memory_gb", 48), ("link_gbps", 5),
                            ("link_latency_us", 7), ("net_gbps", 2), ("net_latency_us", 9)):
            self.assertEqual(given[name], value, name)
        one = self.plan("--model", "flux1-dev", "--step-seconds", 3.5)["layouts"][0]
        self.assertAlmostEqual(one["step_seconds"], 3.5, 9)

    def test_hosts(self):
        near, far = (self.plan("--model", "wan2.1-1.3b", "--num-gpus", 8, "--nodes", nodes, "--ulysses-degree", 4, "--net-gbps", 1)
                     ["layouts"][0]["step_seconds"] for nodes in (1, 8))
        self.assertGreater(far, near)
        self.fails(2, ["--nodes 3", "multiples"], "plan", "--model", "wan2.1-1.3b", "--num-gpus", 8, "--nodes", 3)

    def test_memory(self):
        best = self.plan("--model", "wan2.1-14b", "--num-gpus", 4)["layouts"][0]
        self.assertTrue(best["fits"] and best["sharded"])
        self.assertIn("--use-fsdp-inference", best["flags"])
        told = self.passes("plan", "--model", "wan2.1-14b", "--num-gpus", 1).stdout
        self.assertIn("does not fit", told)
        self.assertTrue(self.plan("--model", "wan2.1-14b", "--dit-layerwise-offload")["layouts"][0]["fits"])

    def test_only_ranks_of_the_same_weights_shard(self):
        """What is recommended is what generate takes: tp ranks have weights of their own."""
        for flags in (["--model", "flux1-dev"], ["--model", "z-image", "--dit-layerwise-offload"]):
            layouts = self.plan("--num-gpus", 2, "--layouts", 100, *flags, "--use-fsdp-inference")["layouts"]
            self.assertEqual({(c["sharded"], c["tp_size"]) for c in layouts}, {(True, 1)})
            self.passes("generate", "--print-topology", *layouts[0]["flags"].split())
        self.assertFalse(self.plan("--model", "z-image", "--use-fsdp-inference")["layouts"][0]["sharded"])
        self.fails(2, ["--use-fsdp-inference", "sp_degree"], "plan", "--model", "z-image", "--num-gpus", 2, "--tp-size", 2, "--use-fsdp-inference")

    def test_folders(self):
        found = self.plan("--model-path", TINY, "--num-gpus", 2, "--device-preset", "cpu")
        self.assertEqual((found["model"], found["heads"]), ("WanTransformer3DModel", 4))
        for folder, preset in (("wan2.1-t2v-1.3b", "wan2.1-1.3b"), ("wan2.1-t2v-14b", "wan2.1-14b")):
            shape = [self.plan(flag, name, "--width", 832, "--height", 480, "--num-frames", 81)
                     for flag, name in (("--model-path", os.path.join(CONFIGS, folder)), ("--model", preset))]
            self.assertEqual(shape[0]["operations_per_step"], shape[1]["operations_per_step"])
            self.assertEqual(shape[0]["tokens"], 32760)

    def test_other_classes(self):
        os.mkdir(self.path("transformer"))
        self.write("model_index.json", json.dumps({"_class_name": "XPipeline", "transformer": ["diffusers", "X"]}))
        self.write("transformer/config.json", json.dumps({"_class_name": "XTransformer"}))
        self.fails(5, ["XTransformer", "known are Wan, FLUX.1"], "plan", "--model-path", self.folder)

    def test_measured_links(self):
        path = self.write("links.json", json.dumps({"results": [
            {"call": "all_to_all", "bytes": 16, "us": 30, "correct": True},
            {"call": "all_to_all", "bytes": 1 << 26, "us": 6740, "correct": True}]}))
        device = self.plan("--model", "wan2.1-1.3b", "--num-gpus", 2, "--measured", path)["device"]
        self.assertAlmostEqual(device["link_latency_us"], 30, 6)
        self.assertAlmostEqual(device["link_gbps"], (1 << 26) / 6710e-6 / 1e9, 6)
        links = self.write("shm.json", self.passes("comm-test", "--backend", "shm", "--num-gpus", 2, "--max-bytes", 1 << 22,
                                                   "--json").stdout)
        device = self.plan("--model", "wan2.1-1.3b", "--num-gpus", 2, "--device-preset", "cpu", "--measured", links)["device"]
        self.assertTrue(0.01 < device["link_gbps"] < 1000 and 0.1 < device["link_latency_us"] < 1e5, device)
        empty = self.write("empty.json", "{}")
        self.fails(4, ["empty.json", "comm-test --json"], "plan", "--model", "wan2.1-1.3b", "--measured", empty)

    def test_refused(self):
        self.fails(2, ["no model"], "plan")
        self.fails(2, ["accepted is one of"], "plan", "--model", "z-image", "--model-path", TINY)
        self.fails(2, ["wan2.1-14b"], "plan", "--model", "wan")
        self.fails(2, ["multiples of 16"], "plan", "--model", "z-image", "--width", 1000)
        self.fails(2, ["--ulysses-degree 3"], "plan", "--model", "z-image", "--num-gpus", 4, "--ulysses-degree", 3)
        self.fails(2, ["dp_size is 3", "does not divide num_gpus, 4"], "plan", "--model", "z-image", "--num-gpus", 4, "--dp-size", 3)
        self.fails(2, ["up to 12 (heads)", "up to 1 (rows"], "plan", "--model", "wan2.1-1.3b", "--num-gpus", 64, "--width", 16, "--height", 16, "--num-frames", 1)
        self.fails(2, ["up to 64 ranks"], "plan", "--model", "z-image", "--num-gpus", 128)
        done = run("plan", "--json", "--model", "z-image", "--num-gpus", 67)
        self.assertIn("67", json.loads(done.stdout)["error"]["message"])


class Page(CommandTest):
    """docs/parallel.md: its examples run, its projections are what the program says."""

    def setUp(self):
        super().setUp()
        with open(os.path.join(ROOT, "docs/parallel.md"), encoding="utf-8") as file:
            self.page = file.read()

    def rows(self, heading):
        """The cells of the table behind a text."""
        table = self.page[self.page.index(heading):]
        lines = table[table.index("|---"):].split("\n")[1:]
        for line in itertools.takewhile(lambda text: text.startswith("|"), lines):
            yield [cell.strip() for cell in line.strip("|").split("|")]

    def test_examples(self):
        examples = [line.split()[1:] for block in re.findall(r"```sh\n(.*?)```", self.page, re.DOTALL) for line in block.splitlines()]
        self.assertGreater(len(examples), 3)
        for example in examples:
            self.passes(*example, cwd=ROOT)

    def best(self, model, flags):
        found = json.loads(self.passes("plan", "--model", model, *flags, "--text-encoder-cpu-offload", "--json").stdout)
        layout = found["layouts"][0]
        return [f"{layout['step_seconds']:.3g}", layout["speedup"], f"{layout['sent_bytes_per_step'] / 1e9:.2f}"]

    def test_projections(self):
        count = 0
        for heading, flags_of in (("usual\nsizes, text encoders", lambda cell: ["--num-gpus", cell]),
                                  ("64 hosts with one B60 each", lambda cell: cell.strip("`").split())):
            for model, cell, _, seconds, speedup, _, _, sent in self.rows(heading):
                count += 1
                got = self.best(model, flags_of(cell))
                self.assertEqual([seconds, sent], [got[0], got[2]], (model, cell))
                self.assertAlmostEqual(float(speedup), got[1], delta=0.051, msg=(model, cell))
        self.assertEqual(count, 30)


main()
