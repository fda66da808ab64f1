"""Tests of the Python package with the real program. argv[1] of every test is its path."""
import os
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.abspath(sys.argv.pop(1))
SMALL = os.path.join(ROOT, "tests/golden/wan2.1-t2v/checkpoint")  # random weights, milliseconds per step
os.environ["DARKROOM_PROGRAM"] = PROGRAM
os.environ["PYTHONPATH"] = os.path.join(ROOT, "python")
sys.path.insert(0, os.environ["PYTHONPATH"])
FAST = dict(width=32, height=32, num_inference_steps=2)
LONG = dict(width=128, height=128, num_inference_steps=1000, num_frames=17)  # many seconds, on fast machines too


def alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(test, condition, seconds=10.0, what="it does not come to pass"):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            test.fail(what)
        time.sleep(0.01)


def run_python(text, *args, **more):
    """A program of its own, with this package."""
    return subprocess.run([sys.executable, "-B", "-c", text, *args], capture_output=True, text=True, timeout=120, **more)


class Folder(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = scratch.name

    def path(self, name):
        return os.path.join(self.folder, name)
