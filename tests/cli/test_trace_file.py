#!/usr/bin/env python3
"""darkroom generate --trace-path: the file's spans nest, follow one another in their lane and lie inside what they are
part of; paths that are no files are refused."""
import json
import os
import subprocess
import unittest

from command import PROGRAM, SMALL_FLAGS, CommandTest, main

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


class Text(unittest.TestCase):
    def test_help_names_it(self):
        done = subprocess.run([PROGRAM, "generate", "--help"], capture_output=True, text=True, check=True)
        self.assertIn("--trace-path FILE", done.stdout)


if __name__ == "__main__":
    main()
