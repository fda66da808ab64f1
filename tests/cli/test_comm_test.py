#!/usr/bin/env python3
"""darkroom comm-test: every backend that this build has, with right data, and with ranks that are late, dead or wrong."""
import json
import os
import shutil
import socket
import subprocess
import unittest

from command import PROGRAM, CommandTest, main

BUILD = os.path.dirname(PROGRAM)
ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
BACKENDS = ["shm"]
if os.path.exists(f"{BUILD}/libdarkroom-mpi.so") and shutil.which("mpirun"):
    BACKENDS.append("mpi")
if os.path.exists(f"{BUILD}/libdarkroom-xccl.so"):
    BACKENDS.append("xccl")
SMALL = ["--max-bytes", "70000"]
needs_mpi = unittest.skipUnless("mpi" in BACKENDS, "this build has no module for MPI")
HAS_XPU = os.path.exists(f"{BUILD}/libdarkroom-xpu.so")
needs_xccl = unittest.skipUnless("xccl" in BACKENDS, "this build has no module for oneCCL")


def all_output(done):
    return done.stdout + done.stderr


class RightRanks(CommandTest):
    def test_every_backend(self):
        for backend in BACKENDS:
            for ranks in (2, 3):
                with self.subTest(backend=backend, ranks=ranks):
                    done = self.passes("comm-test", "--backend", backend, "--num-gpus", ranks, *SMALL, "--json", env=ROOT_MAY)
                    report = json.loads(done.stdout)
                    self.assertTrue(report["passed"])
                    self.assertEqual((report["backend"], report["ranks"]), (backend, ranks))
                    self.assertEqual(report["groups"], ["world", "halves", "odd_even"])
                    self.assertGreater(report["checks"], 300)
                    self.check_calls(report)

    @unittest.skipUnless(HAS_XPU and "xccl" in BACKENDS, "this build has no module for Intel GPUs")
    def test_memory_of_a_device(self):
        for ranks, spelled in ((2, "xccl"), (3, "ccl")):
            with self.subTest(ranks=ranks):
                done = self.passes("comm-test", "--backend", spelled, "--device", "xpu:cpu", "--num-gpus", ranks, *SMALL, "--json")
                report = json.loads(done.stdout)
                self.assertEqual((report["backend"], report["device"], report["passed"]), ("xccl", "xpu:cpu", True))
                self.assertGreater(report["checks"], 300)
                self.check_calls(report)

    def check_calls(self, report):
        calls = {call["call"] for call in report["calls"]}
        offered = {"all_reduce", "reduce_scatter", "all_gather", "gather", "all_to_all", "broadcast", "send", "shift", "barrier"}
        self.assertEqual(calls, offered - set(report["not_offered"]))
        for call in report["calls"]:
            self.assertGreater(call["latency_us"], 0)
            share = {"all_reduce": 2 * (report["ranks"] - 1) / report["ranks"], "broadcast": 1}.get(call["call"])
            if share is not None:
                self.assertAlmostEqual(call["bus_gbs"], call["algorithm_gbs"] * share, places=6)

    def test_the_table(self):
        done = self.passes("comm-test", "--backend", "shm", "--max-bytes", "4096")
        self.assertIn("2 ranks over shm, memory of cpu", done.stdout)
        self.assertRegex(done.stdout, r"all_reduce +BF16 +4 KiB +[\d.]+ +[\d.]+ +[\d.]+")

    def test_nothing_is_left(self):
        before = set(os.listdir("/dev/shm"))
        for backend in BACKENDS:
            self.passes("comm-test", "--backend", backend, "--max-bytes", "1000", env=ROOT_MAY)
        self.assertEqual({name for name in set(os.listdir("/dev/shm")) - before if "darkroom" in name}, set())


class WrongRanks(CommandTest):
    def fault(self, backend, fault, ranks=3):
        done = self.run_fault(backend, fault, ranks)
        self.assertNotEqual(done.returncode, 0, all_output(done))
        return done

    def run_fault(self, backend, fault, ranks):
        return subprocess.run([PROGRAM, "comm-test", "--backend", backend, "--num-gpus", str(ranks), "--deadline-s", "3",
                               "--max-bytes", "2000", "--inject", fault], capture_output=True, text=True, timeout=120,
                              env=dict(os.environ, **ROOT_MAY))

    def test_a_late_rank_is_named(self):
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                self.assertRegex(all_output(self.fault(backend, "late:1")), r"rank 1 did not arrive|did not arrive: rank 1")

    @unittest.skipUnless(HAS_XPU and "xccl" in BACKENDS, "this build has no module for Intel GPUs")
    def test_faults_on_a_device(self):
        flags = ("comm-test", "--backend", "xccl", "--device", "xpu:cpu", *SMALL, "--deadline-s", "2", "--inject")
        self.fails(15, ["rank 1 did not arrive in time"], *flags, "late:1")
        self.fails(12, ["rank 1 brought wrong data"], *flags, "corrupt:1")
        self.fails(9, ["rank 1"], *flags, "kill:1")

    def test_a_dead_rank_is_named(self):
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                self.assertRegex(all_output(self.fault(backend, "kill:1")),
                                 r"rank 1 was ended by signal 9|process rank 1 .*exited on signal 9")

    def test_a_wrong_rank_is_named(self):
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                self.assertIn("rank 1 brought wrong data", all_output(self.fault(backend, "corrupt:1")))

    def test_flags(self):
        self.fails(2, ["'nccl'", "auto, xccl, mpi, shm"], "comm-test", "--backend", "nccl")
        self.fails(2, ["'self'", "4 ranks", "auto, xccl, mpi, shm"], "comm-test", "--backend", "self", "--num-gpus", 4)
        self.fails(2, ["'bogus'", "accepted are cpu, xpu, xpu:N"], "comm-test", "--device", "bogus")
        self.passes("comm-test", "--backend", "self", "--num-gpus", 1, *SMALL)
        self.fails(2, ["'shm'", "--backend xccl or auto"], "comm-test", "--backend", "shm", "--device", "xpu:cpu")
        self.fails(3, ["libdarkroom-xccl.so"], "comm-test", "--backend", "ccl", env={"DARKROOM_MODULE_PATH": "/nonexistent"})
        self.fails(2, ["late:RANK, kill:RANK and corrupt:RANK"], "comm-test", "--inject", "sleep:1")
        self.fails(2, ["there is no rank 7"], "comm-test", "--backend", "shm", "--inject", "late:7")

    def test_a_missing_module_is_named(self):
        self.fails(3, ["/nonexistent/libdarkroom-xccl.so", "./dev build --xpu"], "comm-test", "--backend", "xccl",
                   env={"DARKROOM_MODULE_PATH": "/nonexistent"})


class OtherStarters(CommandTest):
    """Ranks that mpirun, or somebody else, has started."""

    def mpirun(self, *args, **env):
        return subprocess.run(["mpirun", "--oversubscribe", "-n", "2", PROGRAM, "comm-test", *SMALL, "--json", *args],
                              capture_output=True, text=True, timeout=120, env=dict(os.environ, **ROOT_MAY, **env))

    @needs_mpi
    def test_mpirun(self):
        for backend in BACKENDS:
            with self.subTest(backend=backend):
                done = self.mpirun("--backend", backend)
                self.assertEqual(done.returncode, 0, done.stderr)
                report = json.loads(done.stdout)
                self.assertEqual((report["ranks"], report["backend"], report["passed"]), (2, backend, True))

    def by_environment(self, *args, **env):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        ranks = [subprocess.Popen([PROGRAM, "comm-test", *SMALL, "--json", *args], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True,
                                  env=dict(os.environ, RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2",
                                           MASTER_ADDR="127.0.0.1", MASTER_PORT=port, **env)) for rank in range(2)]
        return [(rank.returncode, *told) for rank, told in [(rank, rank.communicate(timeout=120)) for rank in ranks]]

    def test_the_environment_of_torchrun(self):
        ended = self.by_environment("--backend", "shm")
        self.assertEqual([code for code, _, _ in ended], [0, 0], ended)
        self.assertTrue(json.loads(ended[0][1])["passed"])
        self.assertEqual(ended[1][1], "")

    @needs_xccl
    def test_auto_falls_back_from_xccl_to_shm_and_says_so(self):
        ended = self.by_environment("--backend", "auto", CCL_PLUGIN="NO_SUCH_PLUGIN")
        self.assertEqual([code for code, _, _ in ended], [0, 0], ended)
        self.assertEqual(json.loads(ended[0][1])["backend"], "shm")
        for _, _, stderr in ended:
            self.assertIn("xccl is not fit for use, shm is used instead", stderr)

    def test_an_unknown_meeting_place(self):
        self.fails(2, ["MASTER_ADDR and MASTER_PORT"], "comm-test", "--backend", "shm", env={"RANK": "0", "WORLD_SIZE": "2"})


if __name__ == "__main__":
    main()
