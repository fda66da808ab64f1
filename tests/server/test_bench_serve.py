"""`darkroom bench serve` against a real server."""
import json
import os
import signal
import subprocess
import tempfile
import time
import unittest

from server import PROGRAM, ServerTest, main

QUICK = ["--sizes", "32x32x1", "--num-inference-steps", "1"]


def bench(*flags, timeout=120):
    return subprocess.run([PROGRAM, "bench", "serve", *map(str, flags)], capture_output=True, text=True, timeout=timeout)


class BenchServe(ServerTest):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.file = os.path.join(scratch.name, "report.json")

    def bench(self, *flags, code=0):
        """The report with the single requests."""
        done = bench("--base-url", self.server.url, "--json", "--output-file", self.file, *flags)
        self.assertEqual(done.returncode, code, done.stderr)
        with open(self.file, encoding="utf-8") as file:
            saved = json.load(file)
        printed = json.loads(done.stdout.splitlines()[0])
        self.assertEqual(printed["requests"], len(saved["single_requests"]))
        self.assertEqual(set(saved) - set(printed), {"single_requests"})
        return saved

    def refused(self, text, *flags, code=2):
        done = bench(*flags)
        self.assertEqual(done.returncode, code, (done.stdout, done.stderr))
        self.assertIn(text, done.stderr)

    def test_closed_loop(self):
        before = len(self.server.json("/v1/images?limit=100")["data"])
        report = self.bench("--sizes", "32x32x1:3,48x32x1:1", "--num-inference-steps", 1, "--num-prompts", 24, "--max-concurrency", 3)
        self.assertEqual((report["loop"], report["requests"], report["completed"], report["failed"]), ("closed", 24, 24, 0))
        self.assertEqual(len(self.server.json("/v1/images?limit=100")["data"]) - before, 24 + 2)  # one per size warms up
        counts = {size["size"]: size["requests"] for size in report["sizes"]}
        self.assertEqual(sum(counts.values()), 24)
        self.assertGreater(counts["32x32x1"], counts["48x32x1"])
        singles = report["single_requests"]
        for one in singles:
            self.assertGreater(one["engine_ms"], 0)
            self.assertGreaterEqual(one["ended_ms"] - one["sent_ms"], one["engine_ms"])
        for one in singles:  # how many were in flight when this one was sent
            flying = sum(o["sent_ms"] <= one["sent_ms"] < o["ended_ms"] for o in singles)
            self.assertLessEqual(flying, 3)
        latencies = sorted(one["ended_ms"] - one["arrival_ms"] for one in singles)
        self.assertAlmostEqual(report["latency_ms"]["max"], latencies[-1], places=1)
        self.assertAlmostEqual(report["latency_ms"]["p50"], latencies[11], places=1)
        self.assertAlmostEqual(report["requests_per_s"], 24 / report["seconds"], places=3)

    def test_open_loop_keeps_its_schedule(self):
        flags = [*QUICK, "--request-rate", 40, "--num-prompts", 40, "--seed", 7]
        first, second = self.bench(*flags), self.bench(*flags, "--max-concurrency", 1)
        arrivals = [one["arrival_ms"] for one in first["single_requests"]]
        self.assertEqual(arrivals, [one["arrival_ms"] for one in second["single_requests"]])
        self.assertEqual(arrivals, sorted(arrivals))
        self.assertTrue(500 < arrivals[-1] < 2000, arrivals[-1])  # 39 gaps of 25 ms on average, deviation 16 %
        for one in second["single_requests"]:
            self.assertGreaterEqual(one["sent_ms"], one["arrival_ms"])
        self.assertNotEqual(arrivals, [one["arrival_ms"] for one in self.bench(*flags[:-1], 8)["single_requests"]])

    def test_held_back_requests_count_from_their_arrival(self):
        report = self.bench(*QUICK, "--request-rate", 5000, "--num-prompts", 20, "--max-concurrency", 1)
        self.assertGreater(report["latency_ms"]["max"], report["seconds"] * 1e3 * 0.8)
        self.assertGreater(report["late_ms"]["p50"], report["engine_ms"]["p50"])

    def test_duration(self):
        report = self.bench(*QUICK, "--duration-s", 1)
        self.assertTrue(1 <= report["seconds"] < 10, report["seconds"])
        self.assertLess(max(one["sent_ms"] for one in report["single_requests"]), 1001)

    def test_videos(self):
        report = self.bench("--sizes", "32x32x5", "--num-inference-steps", 1, "--num-prompts", 2)
        self.assertEqual(report["completed"], 2)
        self.assertGreater(report["engine_ms"]["mean"], 0)
        self.assertEqual(self.server.json("/v1/videos")["data"][0]["status"], "completed")

    def test_outputs_per_prompt(self):
        report = self.bench(*QUICK, "--num-prompts", 3, "--num-outputs-per-prompt", 2)
        self.assertAlmostEqual(report["outputs_per_s"], 2 * report["requests_per_s"], places=3)
        self.assertEqual(len(self.server.json("/v1/images")["data"][0]["outputs"]), 2)

    def test_slo(self):
        self.assertEqual(self.bench(*QUICK, "--num-prompts", 5, "--slo-s", 100)["slo_attainment"], 1)
        self.assertEqual(self.bench(*QUICK, "--num-prompts", 5, "--slo-s", 0.0001)["slo_attainment"], 0)
        report = self.bench(*QUICK, "--num-prompts", 5, "--slo-scale", 1e5)
        self.assertEqual(report["slo_attainment"], 1)
        self.assertGreater(report["sizes"][0]["slo_s"], 10)  # 0.1 ms x 1e5
        self.assertIsNone(self.bench(*QUICK, "--num-prompts", 1)["slo_attainment"])

    def test_text(self):
        done = bench("--base-url", self.server.url + "/v1/", *QUICK, "--num-prompts", 2)
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in ("2 completed", "requests/s", "p99", "overhead", "32x32x1"):
            self.assertIn(word, done.stdout)

    def test_refusals_of_the_server(self):
        self.refused("alone failed: HTTP 400", "--base-url", self.server.url, "--sizes", "90000x90000x1", code=9)

    def test_no_server(self):
        self.refused("Couldn't connect", "--base-url", "http://127.0.0.1:9", *QUICK, code=9)

    def test_flags(self):
        url = ("--base-url", self.server.url)
        self.refused("'ftp://x', accepted is http(s)://HOST", "--base-url", "ftp://x")
        for wrong in ("128", "128x", "0x128", "128x128x", "128x128x1:", "128x128x1:0", "128x128x1:-1", "128x128x1:nan", "1x1x9999", ""):
            self.refused(f"'{wrong}', accepted is WIDTHxHEIGHT", *url, "--sizes", wrong)
        self.refused("more than 32 sizes", *url, "--sizes", ",".join(["8x8"] * 33))
        self.refused("do not go together", *url, "--slo-s", 1, "--slo-scale", 2)
        self.refused("a character that no key has", *url, "--api-key", "a b")

    def test_interrupt(self):
        process = subprocess.Popen([PROGRAM, "bench", "serve", "--base-url", self.server.url, "--json", *QUICK, "--num-prompts", "100000"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 130, err)
        report = json.loads(out.splitlines()[0])
        self.assertGreater(report["completed"], 0)
        self.assertLessEqual(report["failures"].get("stopped on request", 0), 1)


class BenchServeFull(ServerTest):
    """A server that takes few jobs at a time, and only those with a key."""
    FLAGS = (*ServerTest.FLAGS, "--max-queue", "2", "--api-key", "secret")

    def test_too_many_requests(self):
        done = bench("--base-url", self.server.url, "--json", "--api-key", "secret", *QUICK, "--num-prompts", 30, "--max-concurrency", 8,
                     "--slo-s", 100)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertGreater(report["failures"]["429"], 0)
        self.assertEqual(report["completed"] + report["failed"], 30)
        self.assertEqual(report["failures"], {"429": report["failed"]})
        self.assertIn("HTTP 429: ", report["first_failure"])
        self.assertAlmostEqual(report["slo_attainment"], report["completed"] / 30, places=6)

    def test_key(self):
        done = bench("--base-url", self.server.url, *QUICK)
        self.assertEqual(done.returncode, 9)
        self.assertIn("HTTP 401", done.stderr)


if __name__ == "__main__":
    main()
