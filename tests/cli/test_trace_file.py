#!/usr/bin/env python3
"""darkroom generate --trace-path: the file's spans nest, follow one another in their lane and lie inside what they are
part of; paths that are no files are refused. tools/trace_overlap on files of known sums, and, where DK_TEST_XPU is set,
what it finds out about weights that come and go, against the device's own counters."""
import json
import os
import re
import subprocess
import sys
import unittest

from command import PROGRAM, ROOT, SMALL_FLAGS, TINY, CommandTest, main

SLACK_US = 0.002  # times are written in whole nanoseconds
STAGES = ["input validation", "text encoding", "timestep preparation", "latent preparation", "denoising", "decoding"]


def lanes_of(path):
    """The spans of a file by lane, each [begin, end, name, arguments], in the order of their begin."""
    with open(path, encoding="utf-8") as file:
        events = json.load(file)
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    lanes = {}
    for event in events:
        if event["ph"] == "X":
            lanes.setdefault(names[event["tid"]], []).append(
                (event["ts"], event["ts"] + event["dur"], event["name"], event["args"]))
    for spans in lanes.values():
        spans.sort(key=lambda span: (span[0], -span[1]))
    return lanes


def check_nesting(case, spans):
    """Two spans of a lane are one inside the other or one after the other."""
    open_spans = []
    for span in spans:
        while open_spans and open_spans[-1][1] <= span[0] + SLACK_US:
            open_spans.pop()
        if open_spans:
            case.assertLessEqual(span[1], open_spans[-1][1] + SLACK_US, (open_spans[-1], span))
        open_spans.append(span)


def inside(inner, outer):
    return outer[0] - SLACK_US <= inner[0] and inner[1] <= outer[1] + SLACK_US


def overlap(*args, code=0):
    done = subprocess.run([sys.executable, os.path.join(ROOT, "tools/trace_overlap"), *args], capture_output=True, text=True,
                          check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


class Trace(CommandTest):
    def traced(self, *args):
        path = self.path("trace.json")
        self.small("--prompt", "a star", "--num-frames", 1, "--trace-path", path, *args)
        return lanes_of(path)

    def test_spans_nest(self):
        lanes = self.traced()
        self.assertEqual(set(lanes), {"stages", "compute"})
        for spans in lanes.values():
            check_nesting(self, spans)
        stages = [span for span in lanes["stages"] if not span[2].startswith("step ")]
        steps = [span for span in lanes["stages"] if span[2].startswith("step ")]
        self.assertEqual([span[2] for span in stages], STAGES)
        self.assertEqual([span[2] for span in steps], ["step 1 of 2", "step 2 of 2"])
        for one, next_one in zip(stages, stages[1:]):
            self.assertLessEqual(one[1], next_one[0] + SLACK_US)
        denoising = stages[STAGES.index("denoising")]
        self.assertTrue(all(inside(step, denoising) for step in steps))

    def test_operations_lie_in_stages_and_follow_one_another(self):
        lanes = self.traced()
        operations = lanes["compute"]
        for one, next_one in zip(operations, operations[1:]):
            self.assertLessEqual(one[1], next_one[0] + SLACK_US)
        kinds = {}
        for operation in operations:
            stage = [s[2] for s in lanes["stages"] if s[2] in STAGES and inside(operation, s)]
            self.assertEqual(len(stage), 1, operation)
            kinds.setdefault(stage[0], set()).add(operation[2])
        self.assertIn("embedding", kinds["text encoding"])
        self.assertLessEqual({"linear", "attention", "norm"}, kinds["denoising"])
        self.assertIn("conv", kinds["decoding"])
        linear = [op for op in operations if op[2] == "linear"]
        self.assertTrue(all(op[3]["rows"] > 0 and op[3]["flops"] > 0 for op in linear))

    def test_stages_of_every_output(self):
        lanes = self.traced("--num-outputs-per-prompt", 2)
        names = [span[2] for span in lanes["stages"]]
        self.assertEqual((names.count("denoising"), names.count("decoding"), names.count("text encoding")), (2, 2, 1))

    def test_the_pixels_are_the_same(self):
        sums = []
        for trace in ([], ["--trace-path", self.path("t.json")]):
            result = self.small("--prompt", "p", "--num-frames", 1, *trace)
            sums.append(result["results"][0]["outputs"][0]["frames_sha256"])
        self.assertEqual(sums[0], sums[1])

    def test_a_crash_leaves_whole_lines(self):
        path = self.path("trace.json")
        command = [PROGRAM, "generate", *SMALL_FLAGS, "--prompt", "a", "--num-frames", "1", "--num-inference-steps", "200",
                   "--trace-path", path, "--output-path", self.folder]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                if line.startswith("step 100/"):
                    process.kill()
                    break
            process.stderr.read()
        with open(path, encoding="utf-8") as file:
            text = file.read()
        self.assertTrue(text.startswith("[\n"))
        self.assertGreater(len(json.loads(text + "\n]")), 100)

    def test_refused_paths(self):
        for path, code, text in (("-", 2, "names no file"), (self.folder, 2, "is a folder"), ("/dev/null", 2, "ordinary file"),
                                 (self.path("none/t.json"), 3, "No such file or directory")):
            for command in (["generate", *SMALL_FLAGS, "--prompt", "a", "--num-frames", "1", "--output-path", self.folder],
                            ["serve", "--port", "0"]):
                self.fails(code, ["trace_path is '" + path, text, "accepted is the path of a file"], *command,
                           "--trace-path", path)
        self.assertEqual(os.listdir(self.folder), [])


class Overlap(CommandTest):
    LANES = ["stages", "compute", "transfer", "communication"]

    def trace(self, spans, end="\n]\n"):
        """spans: (lane, name, begin, end in milliseconds, arguments)."""
        lines = [json.dumps({"ph": "M", "name": "process_name", "pid": 2, "tid": 0, "args": {"name": "two"}})]
        lines += [json.dumps({"ph": "M", "name": "thread_name", "pid": 2, "tid": i, "args": {"name": lane}})
                  for i, lane in enumerate(self.LANES)]
        lines += [json.dumps({"ph": "X", "pid": 2, "tid": self.LANES.index(lane), "name": name, "ts": 1000 * begin,
                              "dur": 1000 * (end_ms - begin), "args": dict(*args)}) for lane, name, begin, end_ms, *args in spans]
        return self.write("t.json", "[\n" + ",\n".join(lines) + end)

    SPANS = [("stages", "denoising", 0, 100), ("stages", "step 1 of 2", 0, 50), ("stages", "step 2 of 2", 50, 90),
             ("compute", "linear", 10, 30), ("compute", "linear", 40, 60, {"waits_for": "w"}), ("compute", "norm", 60, 70),
             ("transfer", "v", 0, 20), ("transfer", "w", 25, 37), ("communication", "all_to_all", 65, 75)]

    def test_sums(self):
        [one] = json.loads(overlap(self.trace(self.SPANS), "--json"))
        lanes = one["lanes"]
        self.assertEqual((one["process"], one["pid"], one["seconds"]), ("two", 2, 0.1))
        self.assertEqual(lanes["compute"], {"spans": 3, "busy_s": 0.05})
        self.assertEqual(lanes["stages"]["busy_s"], 0.1)
        self.assertEqual(lanes["transfer"], {"spans": 2, "busy_s": 0.032, "under_compute_s": 0.015,
                                             "under_compute_share": 0.46875, "waited_s": 0.007})
        self.assertEqual(lanes["communication"], {"spans": 1, "busy_s": 0.01, "under_compute_s": 0.005,
                                                  "under_compute_share": 0.5})

    def test_windows(self):
        path = self.trace(self.SPANS)
        [one] = json.loads(overlap(path, "--json", "--inside", "step 2 of 2"))
        self.assertEqual(one["seconds"], 0.04)
        self.assertEqual(one["lanes"]["compute"], {"spans": 2, "busy_s": 0.02})
        self.assertIsNone(one["lanes"]["transfer"]["under_compute_share"])
        [one] = json.loads(overlap(path, "--json", "--begin", "0.01", "--end", "0.02"))
        self.assertEqual(one["lanes"]["transfer"]["busy_s"], 0.01)
        self.assertEqual(one["lanes"]["transfer"]["under_compute_share"], 1)

    def test_text_of_a_file_without_its_end(self):
        path = self.trace(self.SPANS, end=',\n{"ph": "X", "pid"')
        text = overlap(path)
        self.assertIn("two, 0.100 s", text)
        self.assertRegex(text, r"transfer +2 spans +0.032 s busy +32.0 % +0.015 s of it under compute, 46.9 %, 0.007 s waited for")

    def test_other_files_are_refused(self):
        for text in ("", "text", "{}", "[1, 2]"):
            self.assertIn("expected a file of --trace-path", overlap(self.write("x.json", text), code=1))
        self.assertIn("No such file", overlap(self.path("none.json"), code=1))


@unittest.skipUnless(os.environ.get("DK_TEST_XPU"), "this build has no module")
class Xpu(CommandTest):
    SLACK_US = 300  # of a device's clock against the host's, on a busy machine
    ROUNDED_S = 1e-4  # the counters are told in tenths of milliseconds
    CUT = 0.03  # of the copies' time, that another reading of the device's clock may cut off the file's spans

    def traced(self, *args):
        path = self.path("trace.json")
        done = self.passes("generate", "--device", "xpu:cpu", "--model-path", TINY, "--prompt", "a star", "--num-frames", 1,
                           "--width", 64, "--height", 64, "--num-inference-steps", 4, "--dit-layerwise-offload", "--explain",
                           "--output-path", self.folder, "--trace-path", path, *args)
        told = re.search(r"offload: (\d+) copies, ([0-9.]+) MB, ([0-9.]+) s, ([0-9.]+) s of them", done.stderr)
        counters = dict(zip(("copies", "mb", "seconds", "stalled"), map(float, told.groups())))
        return path, lanes_of(path), counters

    @staticmethod
    def awaited(lanes):
        """(seconds, least, most) of the copies that an operation waited for: what they took, what of it came after all operations
        before, and what after the last one that was seen to use such a weight. The tool counts the first, the counters take
        the end of the last one that did use one, seen or not, which lies between."""
        events = [(span[0], lane, span) for lane in ("transfer", "compute") for span in lanes[lane]]
        copies, used, free, taken, least, most = {}, 0, 0, 0, 0, 0
        for _, lane, span in sorted(events, key=lambda event: (event[0], event[1] == "compute")):
            if lane == "transfer":
                copies[span[2]] = span
                continue
            if span[3].get("waits_for") in copies:
                begin, end = copies.pop(span[3]["waits_for"])[:2]
                taken += end - begin
                least += max(min(end, span[0]) - max(begin, free), 0)
                most += max(end - max(begin, used), 0)
                used = span[1]
            free = max(free, span[1])
        return taken * 1e-6, least * 1e-6, most * 1e-6

    def check_against_counters(self, path, lanes, counters):
        copies = lanes["transfer"]
        self.assertEqual(len(copies), counters["copies"])
        self.assertAlmostEqual(sum(copy[3]["bytes"] for copy in copies) * 1e-6, counters["mb"], delta=0.051)
        [one] = json.loads(overlap(path, "--json"))
        found = one["lanes"]["transfer"]
        seconds, least, most = self.awaited(lanes)
        slack = self.ROUNDED_S + self.CUT * seconds
        self.assertAlmostEqual(seconds, counters["seconds"], delta=slack)
        self.assertGreaterEqual(found["busy_s"], seconds - slack)  # and those that came for nobody
        self.assertLess(found["busy_s"], 1.5 * counters["seconds"])
        self.assertAlmostEqual(found["waited_s"], least, delta=1e-6)
        self.assertLessEqual(found["waited_s"], counters["stalled"] + slack)
        self.assertLessEqual(counters["stalled"], most + slack)
        self.assertLessEqual(found["waited_s"] + found["under_compute_s"], found["busy_s"] + 1e-6)

    def test_two_queues(self):
        path, lanes, counters = self.traced()
        self.assertEqual(set(lanes), {"stages", "compute", "transfer", "host copies"})
        for spans in lanes.values():
            check_nesting(self, spans)
        for lane in ("compute", "transfer"):
            for one, next_one in zip(lanes[lane], lanes[lane][1:]):
                self.assertLessEqual(one[1], next_one[0] + SLACK_US)
        denoising = [s for s in lanes["stages"] if s[2] == "denoising"][0]
        for copy in lanes["transfer"]:
            self.assertGreater(copy[3]["bytes"], 0)
            self.assertRegex(copy[2], r"^blocks\.\d+\..*weight$|^(patch|time|text|condition|proj).*weight$")
            self.assertTrue(denoising[0] - self.SLACK_US <= copy[0] and copy[1] <= denoising[1] + self.SLACK_US, (copy, denoising))
        inside = [op for op in lanes["compute"] if denoising[0] <= op[0] and op[1] <= denoising[1]]
        names = {op[2] for op in inside}
        self.assertIn("linear", names)
        self.assertTrue({op[3].get("operation") for op in inside} >= {"linear", "attention", "norm", "norm_rope"})
        waiting = [op for op in inside if "waits_for" in op[3]]
        self.assertGreater(len(waiting), len(lanes["transfer"]) // 2)
        self.check_against_counters(path, lanes, counters)

    def test_a_ring_that_is_too_small(self):
        """Room for one weight of 1.6 MB, as a host whose CPU multiplies no bf16 keeps the largest, of 10 to 20 MB."""
        self.check_against_counters(*self.traced("--offload-budget-mb", 2))

    def test_a_text_encoder_elsewhere_has_a_lane(self):
        _, lanes, _ = self.traced("--text-encoder-device", "cpu")
        encoding = [s for s in lanes["stages"] if s[2] == "text encoding"][0]
        self.assertTrue(lanes["text encoder"])
        self.assertTrue(all(inside(op, encoding) for op in lanes["text encoder"]))


class Text(unittest.TestCase):
    def test_help_names_it(self):
        done = subprocess.run([PROGRAM, "generate", "--help"], capture_output=True, text=True, check=True)
        self.assertIn("--trace-path FILE", done.stdout)


if __name__ == "__main__":
    main()
