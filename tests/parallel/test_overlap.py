#!/usr/bin/env python3
"""Transfers under compute: in the traces of ring 2 and Ulysses 2 spans of shift and all_to_all lie under spans of operations. On two
cores, which the ranks and what carries their calls share, the share says little about devices; here it must be there, and is printed."""
import json
import os
import subprocess
import tempfile
import unittest

from ranks import BACKENDS, BUILT_IN, PROGRAM, ROOT, call, has_xpu, main, rank_flags, started_by

# A rank that is behind finds what it wants: its two threads share a core, and a short call may end before the operation begins that it
# would lie under. In two steps that was once so of all 24 calls of one rank.
STEPS = "8"
CALLS = {"ring 2": "shift", "ulysses 2": "all_to_all"}


def spans(path):
    """{lane: [(begin, end, name), …]} of one process, in microseconds."""
    with open(path, encoding="utf-8") as file:
        events = json.load(file)
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M" and event["name"] == "thread_name"}
    lanes = {}
    for event in events:
        if event["ph"] == "X":
            lanes.setdefault(names.get(event["tid"]), []).append((event["ts"], event["ts"] + event["dur"], event["name"]))
    return lanes


def share_under(calls, operations):
    """Which part of the calls' time lies under operations."""
    operations, under, at = sorted(operations), 0.0, 0
    for begin, end, _ in sorted(calls):
        while at < len(operations) and operations[at][1] <= begin:
            at += 1
        under += sum(max(0, min(end, e) - max(begin, b)) for b, e, _ in operations[at:at + 200] if b < end)
    return under / sum(end - begin for begin, end, _ in calls)


class Overlap(unittest.TestCase):
    def check(self, layout, backend, *more):
        with tempfile.TemporaryDirectory() as folder:
            trace = os.path.join(folder, "trace.json")
            done = call([*started_by(backend, 2), PROGRAM, "generate", "--prompt", "a cat", "--save-output=false", "--model-path", BUILT_IN,
                         "--width", "256", "--height", "256", "--num-frames", "17", "--num-inference-steps", STEPS, "--trace-path", trace,
                         "--distributed-backend", backend, *rank_flags(layout), *more])
            self.assertEqual(done.returncode, 0, done.stderr)
            files = sorted(os.path.join(folder, name) for name in os.listdir(folder))
            self.assertEqual(len(files), 2)
            for path in files:
                lanes = spans(path)
                calls = [span for span in lanes["communication"] if CALLS[layout] in span[2]]
                self.assertGreater(len(calls), 20, sorted({name for _, _, name in lanes["communication"]}))
                share = share_under(calls, lanes["compute"])
                print(f"{layout}, {backend}{' '.join(('', *more))}, {os.path.basename(path)}: {len(calls)} calls, "
                      f"{sum(e - b for b, e, _ in calls) / 1e3:.1f} ms, {share:.0%} under compute", flush=True)
                self.assertGreater(share, 0)
            told = subprocess.run([os.path.join(ROOT, "tools/trace_overlap"), *files, "--inside", "denoising"], capture_output=True, text=True,
                                  check=False)
            self.assertEqual(told.returncode, 0, told.stderr)
            self.assertIn("communication", told.stdout)

    def test_on_cores(self):
        for layout in CALLS:
            for backend in BACKENDS:
                with self.subTest(layout=layout, backend=backend):
                    self.check(layout, backend)

    @unittest.skipUnless(has_xpu() and "xccl" in BACKENDS, "this build has no module for Intel GPUs")
    def test_on_devices(self):
        for layout in CALLS:
            with self.subTest(layout=layout):
                self.check(layout, "xccl", "--device", "xpu:cpu")


main()
