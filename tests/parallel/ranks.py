"""Running several ranks in tests: layouts, starters, and comparing what comes out. argv[1] of every test is the program."""
import functools
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from array import array

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.abspath(sys.argv.pop(1))
BUILD = os.path.dirname(PROGRAM)
SMALL = os.path.join(ROOT, "tests/golden/wan2.1-t2v/checkpoint")  # 3 heads, random weights, milliseconds per step
BUILT_IN = os.path.join(ROOT, "models/tiny-wan")  # 4 heads
PICTURE = os.path.join(ROOT, "tests/golden/wan2.1-edit/picture.png")
ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
FULL = os.environ.get("DARKROOM_TEST_FULL") == "1"  # CONTRIBUTING.md: what takes too long for every commit
TIMEOUT_S = 120

LAYOUTS = {  # name: (ranks, flags)
    "one rank": (1, []),
    "ulysses 2": (2, ["--ulysses-degree", "2"]),
    "ring 2": (2, ["--ring-degree", "2", "--ulysses-degree", "1"]),
    "ulysses 2 x ring 2": (4, ["--ulysses-degree", "2", "--ring-degree", "2"]),
    "tp 2": (2, ["--tp-size", "2"]),
    "cfg 2": (2, ["--enable-cfg-parallel"]),
    "tp 2 x ring 2": (4, ["--tp-size", "2", "--ring-degree", "2", "--ulysses-degree", "1"]),
    "tp 2 x ulysses 2": (4, ["--tp-size", "2", "--ulysses-degree", "2"]),
    "ulysses 3": (3, ["--ulysses-degree", "3"]),
    "ring 3": (3, ["--ring-degree", "3", "--ulysses-degree", "1"]),
    "cfg 2 x ulysses 2": (4, ["--enable-cfg-parallel", "--ulysses-degree", "2"]),
    "cfg 2 x ring 2": (4, ["--enable-cfg-parallel", "--ring-degree", "2", "--ulysses-degree", "1"]),
    "cfg 2 x tp 2": (4, ["--enable-cfg-parallel", "--tp-size", "2"]),
    "ulysses 2, sharded": (2, ["--ulysses-degree", "2", "--use-fsdp-inference"]),
    "cfg 2 x ring 2, sharded by 2": (4, ["--enable-cfg-parallel", "--ring-degree", "2", "--ulysses-degree", "1", "--use-fsdp-inference",
                                         "--hsdp-shard-dim", "2"]),
    "tp 3 x ring 2": (6, ["--tp-size", "3", "--ring-degree", "2", "--ulysses-degree", "1"]),
}
HEADS_FOUR = {"tp 2 x ulysses 2"}  # a head for each: not on three


def rank_flags(layout):
    ranks, flags = LAYOUTS[layout]
    return ["--num-gpus", str(ranks), *flags] if ranks > 1 else []


def has(backend):
    if backend == "mpi":
        return os.path.exists(f"{BUILD}/libdarkroom-mpi.so") and shutil.which("mpirun") is not None
    return backend != "xccl" or os.path.exists(f"{BUILD}/libdarkroom-xccl.so")


def has_xpu():
    return os.path.exists(f"{BUILD}/libdarkroom-xpu.so")


def hiding(folder):
    """The words before a program that is not to see what a folder holds; another user than root needs a name space of its own for that."""
    return ["unshare", "--mount" if os.geteuid() == 0 else "-rm", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', folder]


BACKENDS = [backend for backend in ("shm", "mpi", "xccl") if has(backend)]
needs_mpi = unittest.skipUnless(has("mpi"), "this build has no module for MPI")
needs_xccl = unittest.skipUnless(has("xccl"), "this build has no module for oneCCL")
needs_xpu = unittest.skipUnless(has_xpu(), "this build has no module for Intel GPUs")
needs_full = unittest.skipUnless(FULL, "takes minutes: DARKROOM_TEST_FULL=1 asks for it")


def started_by(backend, ranks):
    """The words before the program: MPI's ranks are started by mpirun."""
    return ["mpirun", "--oversubscribe", "-n", str(ranks)] if backend == "mpi" and ranks > 1 else []


def call(words, env=None, timeout=TIMEOUT_S):
    """Runs in a session of its own, so that a hang leaves nothing behind."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                               env=dict(os.environ, **ROOT_MAY, **(env or {})), start_new_session=True)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        out, err = process.communicate()
        raise AssertionError(f"not within {timeout} s: {' '.join(words)}\n{err}") from None
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def read_tensors(path):
    """{name: array of floats} of a safetensors file of F32 tensors."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            tensors[name] = array("f", data[begin:end])
    return tensors


class Result:
    """What one `darkroom generate` made: latents of every step and output, frames, the report."""

    def __init__(self, tensors, report):
        self.tensors, self.report = tensors, report

    @property
    def latents(self):
        """The last ones: what the decoder reads."""
        return self.tensors["vae_in"]

    @property
    def pixels(self):
        return [output["frames_sha256"] for result in self.report["results"] for output in result["outputs"]]


def generate(*flags, layout="one rank", backend="shm", env=None, timeout=TIMEOUT_S, words_before=None, width=32, height=32):
    """One request; fails with what the program said."""
    with tempfile.TemporaryDirectory() as folder:
        dump = os.path.join(folder, "dump.safetensors")
        before = started_by(backend, LAYOUTS[layout][0]) if words_before is None else words_before
        backend_flags = ["--distributed-backend", backend] if LAYOUTS[layout][0] > 1 else []
        words = [*before, PROGRAM, "generate", "--prompt", "a red circle", "--seed", "1", "--save-output=false", "--json",
                 "--width", str(width), "--height", str(height), "--dump-tensors", dump, "--dist-timeout", "60",
                 *rank_flags(layout), *backend_flags, *map(str, flags)]
        done = call(words, env, timeout)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(words)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return Result(read_tensors(dump), json.loads(done.stdout))


@functools.lru_cache(maxsize=None)
def one_rank(*flags):
    """What layouts are compared with."""
    return generate(*flags)


def largest_difference(a, b):
    """Of two tensors, as a share of the second one's range."""
    assert len(a) == len(b) > 0, (len(a), len(b))
    assert all(map(math.isfinite, a)), "not all numbers are finite"
    return max(abs(x - y) for x, y in zip(a, b)) / (max(b) - min(b))


def rms_difference(a, b):
    """Of two tensors, as a share of the second one's root mean square."""
    assert len(a) == len(b) > 0, (len(a), len(b))
    assert all(map(math.isfinite, a)), "not all numbers are finite"
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)) / sum(y * y for y in b))


def main():
    unittest.main(verbosity=1)
