#!/usr/bin/env python3
"""darkroom generate on several ranks: what one rank makes, bit for bit where the arithmetic is the same, and how all of
them end."""
import json
import os
import signal
import socket
import subprocess
import time

from command import PROGRAM, SMALL, CommandTest, main, read_safetensors

# Latents of 10 rows, which 4 ranks share out unevenly. The text encoder of the small model has fewer heads than 4, so that
# the leader encodes alone, and Ulysses ranks and branches of guidance change no sums.
EXACT = ["--model-path", SMALL, "--prompt", "a boat", "--width", 112, "--height", 80, "--num-frames", 9, "--seed", 3,
         "--num-inference-steps", 2, "--dtype", "f32"]
RANKS = ["--num-gpus", 4, "--ulysses-degree", 2, "--enable-cfg-parallel"]
SOON = float(os.environ.get("DARKROOM_TEST_SOON", "1.0"))


class Ranks(CommandTest):
    def tensors(self, name, *flags):
        path = self.path(name + ".safetensors")
        self.passes("generate", *EXACT, "--output-path", self.path(name), "--dump-tensors", path, *flags)
        header, data = read_safetensors(path)
        return {key: data[slice(*entry["data_offsets"])] for key, entry in header.items() if key != "__metadata__"}

    def assert_same(self, one, other):
        self.assertEqual(sorted(one), sorted(other))
        for name in one:
            self.assertTrue(one[name] == other[name], name)

    def test_the_decoder_is_shared_out(self):
        one, four = self.tensors("one"), self.tensors("four", *RANKS)
        self.assertIn("frames", one)
        self.assert_same(one, four)

    def test_tiles(self):
        tiles = ["--vae-tile-size", 64]
        self.assert_same(self.tensors("one", *tiles), self.tensors("four", *tiles, *RANKS))

    def test_a_picture(self):
        """35 tokens on each rank: up to 32 rows of a linear layer are summed in another order (device.h, direct_rows)."""
        picture = ["--num-frames", 1, "--num-outputs-per-prompt", 2, "--width", 224]
        self.assert_same(self.tensors("one", *picture), self.tensors("four", *picture, *RANKS))

    def test_benches_refuse_what_they_cannot_share_out(self):
        folder = self.path("transformer")
        for flags in (["--dp-size", 2], ["--use-fsdp-inference"], ["--enable-cfg-parallel"]):
            self.fails(2, ["accepted are tp_size, ulysses_degree and ring_degree"], "bench", "model", "--config", folder,
                       *flags)
        for bench in ("linear", "conv2d"):
            self.fails(2, [f"ring_degree is for bench model, not for bench {bench}"], "bench", bench, "--ring-degree", 2)

    def test_benches_share_heads_as_generate_does(self):
        """Before any rank starts: the small model's transformer and text encoder have three."""
        for command in (["bench", "model", "--config", SMALL], ["generate", "--model-path", SMALL, "--prompt", "x", "--output-path", self.path("out")]):
            self.fails(2, ["tp_size is 4", "3 heads to share out", "accepted are 1 to 3"], *command, "--num-gpus", 4, "--tp-size", 4)
            self.fails(2, ["ulysses_degree is 4", "a rank has 3 heads"], *command, "--num-gpus", 4, "--ulysses-degree", 4)
            self.fails(2, ["1 tokens", "the 2 ranks"], *command, "--num-gpus", 2, "--ring-degree", 2, "--width", 16, "--height", 16,
                       "--num-frames", 1)
        self.fails(2, ["4 ranks", "3 heads", "accepted are 1 to 3"], "bench", "model", "--config", SMALL, "--part", "text", "--num-gpus", 4)

    def test_replicas_are_for_requests(self):
        """Also where a launcher started them: each would make the same."""
        place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
        for env in ({}, place):
            self.fails(2, ["dp_size is 2", "darkroom serve"], "generate", "--prompt", "x", "--num-gpus", 2, "--dp-size", 2, env=env)

    def test_a_launch_that_makes_no_sense(self):
        """It is not taken for none: the others wait for this rank."""
        for place, words in (({"RANK": "abc", "WORLD_SIZE": "2"}, "RANK is 'abc'"),
                             ({"RANK": "0", "WORLD_SIZE": "-2"}, "WORLD_SIZE is '-2'"),
                             ({"RANK": "0", "WORLD_SIZE": "0"}, "0 ranks were started, accepted are 1 to 64"),
                             ({"RANK": "0", "WORLD_SIZE": "65"}, "65 ranks were started, accepted are 1 to 64"),
                             ({"RANK": "", "WORLD_SIZE": "2"}, "WORLD_SIZE, but not RANK"),
                             ({"RANK": "1"}, "RANK, but not WORLD_SIZE"),
                             ({"RANK": "2", "WORLD_SIZE": "2"}, "rank 2 of 2, expected 0 to 1"),
                             ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "7", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_RANK is 7")):
            env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", **place}
            for command in (["generate", "--prompt", "x"], ["serve", "--port", 0], ["comm-test", "--backend", "shm"]):
                self.fails(2, [words], *command, env=env)

    def test_ranks_that_were_started_otherwise(self):
        """They say so when they meet, before a call of theirs can mean another one to the others."""
        for number, (mine, others, words) in enumerate((
                (["--dtype", "f32"], ["--dtype", "bf16"], "dtype is 'bf16' on rank 1, 'f32' on rank 0"),
                (["--tp-size", 2], ["--sp-degree", 2], "ulysses 2, tp 1' on rank 1"),
                (["--use-fsdp-inference"], [], "share weights out is '0' on rank 1, '2' on rank 0"),
                (["--model-path", SMALL], [], "model_path is 'tiny-wan' on rank 1"))):
            place = {"WORLD_SIZE": "2", "MASTER_ADDR": f"unix:@darkroom-test-{os.getpid()}-{number}"}
            command = ["generate", "--prompt", "x", "--output-path", self.path("out"), "--num-inference-steps", 1]
            with subprocess.Popen([PROGRAM, *map(str, command + others)], env={**os.environ, **place, "RANK": "1"},
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as other:
                self.fails(2, [words], *command, *mine, env={**place, "RANK": "0"})
                self.assertIn(words, other.communicate(timeout=30)[1])
                self.assertEqual(other.returncode, 2)

    def test_ports_that_replicas_cannot_have(self):
        place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        self.fails(2, ["MASTER_PORT is 65535", "accepted are 1 to 65533"], "serve", "--port", 0, "--dp-size", 2,
                   env={**place, "MASTER_PORT": "65535"})
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = busy.getsockname()[1]
            done = self.fails(2, ["ended 5 times"], "serve", "--port", 0, "--dp-size", 2, "--store-path", self.path("store"),
                              env={**place, "MASTER_PORT": str(port - 2)})
            self.assertIn(f"127.0.0.1:{port}: Address already in use", done.stderr)

    def test_layouts_that_generate_takes_are_listed(self):
        flags = ["--prompt", "x", "--num-gpus", 4]
        listed = self.fails(2, ["tp_size 3", "--ulysses-degree 4"], "generate", *flags, "--tp-size", 3).stderr
        self.assertNotIn("--dp-size", listed)
        self.fails(2, ["--dp-size 2"], "serve", "--num-gpus", 4, "--tp-size", 3)
        self.fails(2, ["dp_size is 2"], "generate", "--print-topology", "--num-gpus", 2, "--dp-size", 2)

    def test_unknown_backends_are_refused(self):
        """Also where a replica is one rank, which talks to no other."""
        for command in (["generate", "--prompt", "x"], ["serve", "--num-gpus", 2], ["generate", "--print-topology"]):
            self.fails(2, ["distributed_backend is 'bogus'", "auto, xccl, mpi, shm"], *command, "--distributed-backend", "bogus")
        self.fails(2, ["distributed_backend is 'self'", "2 ranks"], "generate", "--prompt", "x", "--num-gpus", 2, "--distributed-backend", "self")

    def test_ranks_without_a_branch_to_compute(self):
        done = self.passes("generate", *EXACT, "--num-gpus", 2, "--enable-cfg-parallel", "--guidance-scale", 1, "--output-path", self.path("out"))
        self.assertEqual(done.stderr.count("guidance is off (guidance_scale is 1)"), 1, done.stderr)

    def test_a_bench_of_two_ranks(self):
        """What it counts is of one timed pass, however many there are; warming up and meeting are not counted."""
        for repeats in (1, 3):
            with self.subTest(repeats=repeats):
                self.check_bench(repeats)

    def check_bench(self, repeats):
        report = json.loads(self.passes("bench", "model", "--config", SMALL, "--width", 64, "--height", 64, "--num-gpus", 2,
                                        "--ring-degree", 2, "--threads", 1, "--repeats", repeats, "--json").stdout)
        self.assertEqual(report["ranks"], {"backend": "shm", "cfg": 1, "ulysses": 1, "ring": 2, "tp": 1})
        self.assertEqual(report["operations"]["attention"]["calls"], 3 * 3)  # a layer: two blocks of a ring, and the text
        self.assertEqual(report["communication"]["shift"]["calls"], 3)  # a layer: one
        self.assertLess(report["communication"]["shift"]["waited"], report["seconds"])

    def test_benches_take_turns(self):
        """A pass for every line, of both ranks; between them they wait, and the end of the input ends them."""
        command = [PROGRAM, "bench", "model", "--config", SMALL, "--width", 64, "--height", 64, "--num-gpus", 2, "--ring-degree", 2,
                   "--threads", 1, "--turns", "--json"]
        bench = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(bench.kill)
        idle = 3.0
        for number in range(3):
            time.sleep(idle if number == 2 else 0)
            bench.stdin.write("\n")
            bench.stdin.flush()
            turn = json.loads(bench.stdout.readline())
            self.assertEqual(turn["pass"], number)
            self.assertGreater(turn["seconds"], 0)
        report = json.loads(bench.communicate(timeout=60)[0])
        self.assertEqual(bench.returncode, 0)
        self.assertEqual(report["repeats"], 2)  # the first pass warms up
        self.assertEqual(report["communication"]["shift"]["calls"], 3)
        self.assertLess(report["seconds_most"], idle)  # a turn is not waited for within a pass

    def test_turns_that_time_nothing_are_refused(self):
        for lines in (b"", b"\n"):
            done = subprocess.run([PROGRAM, "bench", "model", "--config", SMALL, "--width", "64", "--height", "64", "--turns"], input=lines,
                                  capture_output=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(b"no pass was timed", done.stderr)
        self.fails(2, ["turns is for bench model, not for bench linear"], "bench", "linear", "--turns")

    def test_stop_while_decoding(self):
        """At a size that a rank decodes for seconds: the step is done, so the ranks are decoding."""
        command = [PROGRAM, "generate", "--model-path", SMALL, "--prompt", "x", "--width", 832, "--height", 480, "--num-frames", 33,
                   "--num-inference-steps", 1, "--guidance-scale", 1, "--num-gpus", 2, "--sp-degree", 2, "--threads", 1,
                   "--trace-path", self.path("trace.json"), "--output-path", self.path("out")]
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.addCleanup(process.stderr.close)
        while "step 1/1" not in (line := process.stderr.readline()):
            self.assertTrue(line, "it ended before its step")
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        self.assertIn("stopped on request", process.communicate(timeout=60)[1])
        self.assertLess(time.monotonic() - begin, SOON)
        self.assertEqual(process.returncode, 130)
        for rank in range(2):
            with open(self.path(f"trace-{rank}.json"), encoding="utf-8") as file:
                self.assertIn('"decoding"', file.read())


if __name__ == "__main__":
    main()
