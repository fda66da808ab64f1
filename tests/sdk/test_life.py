"""Processes: how they begin and end, and what happens when one dies."""
import gc
import glob
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import numpy
import sdk
from sdk import FAST, LONG

import darkroom
from darkroom import DiffGenerator


def scheduler_of(generator):
    return generator._backend._link._scheduler.process.pid


def worker_of(generator):
    return generator.info()["workers"][0]["pid"]


CHILD = """
import sys, time, darkroom
generator = darkroom.DiffGenerator.from_pretrained(sys.argv[1])
print(generator._backend._link._scheduler.process.pid, generator.info()["workers"][0]["pid"],
      generator._backend._link._scheduler.folder, flush=True)
"""


class Ends(unittest.TestCase):
    def start(self, rest):
        child = subprocess.Popen([sys.executable, "-B", "-c", CHILD + rest, sdk.SMALL], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 text=True)
        self.addCleanup(child.communicate)
        self.addCleanup(child.kill)
        scheduler, worker, folder = child.stdout.readline().split()
        return child, int(scheduler), int(worker), folder

    def gone(self, *pids):
        for pid in pids:
            sdk.until(self, lambda: not sdk.alive(pid), 10, f"{pid} is still there")

    def test_close(self):
        generator = DiffGenerator.from_pretrained(sdk.SMALL)
        scheduler, worker, folder = scheduler_of(generator), worker_of(generator), generator._backend._link._scheduler.folder
        self.assertEqual(os.stat(folder).st_mode & 0o777, 0o700)
        generator.close()
        generator.close()
        self.assertFalse(sdk.alive(scheduler) or sdk.alive(worker) or os.path.exists(folder))
        with self.assertRaisesRegex(darkroom.InvalidRequestError, "closed"):
            generator.generate("x")

    def test_collection(self):
        generator = DiffGenerator.from_pretrained(sdk.SMALL)
        pids = scheduler_of(generator), worker_of(generator)
        del generator
        gc.collect()
        self.gone(*pids)

    def test_nothing_is_left_behind(self):
        own = tempfile.TemporaryDirectory()  # other programs leave things in the common one
        self.addCleanup(own.cleanup)
        self.addCleanup(setattr, tempfile, "tempdir", tempfile.tempdir)
        tempfile.tempdir = own.name
        threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
        folders = len(glob.glob(os.path.join(tempfile.gettempdir(), "darkroom-*")))
        for _ in range(3):
            with DiffGenerator.from_pretrained(sdk.SMALL) as generator:
                generator.generate("x", **FAST, num_frames=1, save_output=False)
        with self.assertRaises(darkroom.DarkroomError):
            DiffGenerator.from_pretrained(sdk.SMALL, num_gpus=0)
        gc.collect()
        sdk.until(self, lambda: threading.active_count() == threads, 10, "threads are left")
        self.assertEqual(len(os.listdir("/proc/self/fd")), files)
        self.assertEqual(len(glob.glob(os.path.join(tempfile.gettempdir(), "darkroom-*"))), folders)

    def test_end_of_python(self):
        child, scheduler, worker, folder = self.start("raise SystemExit(3)")
        self.assertEqual(child.wait(20), 3)
        self.gone(scheduler, worker)
        self.assertFalse(os.path.exists(folder))

    def test_end_while_it_works(self):
        child, scheduler, worker, _ = self.start(
            "import threading\n"
            "threading.Thread(target=lambda: generator.generate('x', num_inference_steps=1000, save_output=False), daemon=True)"
            ".start()\ntime.sleep(0.5)\n")
        self.assertEqual(child.wait(20), 0)
        self.gone(scheduler, worker)

    def test_killed_python(self):
        child, scheduler, worker, _ = self.start("time.sleep(600)")
        child.kill()
        self.gone(scheduler, worker)

    def test_interrupt(self):
        child, scheduler, worker, _ = self.start(
            "generator.generate('x', num_inference_steps=1000, save_output=False,\n"
            "                   on_progress=lambda e: print(e.step, flush=True))\n")
        while int(child.stdout.readline()) < 2:
            pass
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=20)
        self.assertIn("KeyboardInterrupt", errors)
        self.gone(scheduler, worker)

    def test_close_while_another_thread_waits(self):
        generator = DiffGenerator.from_pretrained(sdk.SMALL)
        caught = []

        def work():
            try:
                generator.generate("x", **LONG, save_output=False, on_progress=lambda e: running.set())
            except darkroom.DarkroomError as error:
                caught.append(error)

        running = threading.Event()
        thread = threading.Thread(target=work)
        thread.start()
        self.assertTrue(running.wait(20))
        generator.close()
        thread.join(20)
        self.assertEqual([type(e) for e in caught], [darkroom.CancelledError])

    def test_fork(self):
        with DiffGenerator.from_pretrained(sdk.SMALL) as generator:
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    generator.generate("x", **FAST, save_output=False)
                except darkroom.InvalidRequestError:
                    generator.close()
                    code = 0
                finally:
                    os._exit(code)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
            self.assertEqual(generator.generate("x", **FAST, num_frames=1, save_output=False).frames.shape, (1, 32, 32, 3))


class Dies(unittest.TestCase):
    def test_worker(self):
        """Its task is repeated, with the same pixels."""
        request = dict(width=32, height=32, num_inference_steps=150, num_frames=5, save_output=False)
        with DiffGenerator.from_pretrained(sdk.SMALL) as generator:
            calm = generator.generate("x", **request)
            pid, killed = worker_of(generator), []

            def kill(event):
                if event.step == 3 and not killed:
                    killed.append(pid)
                    os.kill(pid, signal.SIGKILL)

            again = generator.generate("x", **request, on_progress=kill)
            self.assertEqual(killed, [pid])
            sdk.until(self, lambda: worker_of(generator) != pid, 5, "no new worker")
            numpy.testing.assert_array_equal(calm.frames, again.frames)

    def test_worker_too_often(self):
        with DiffGenerator.from_pretrained(sdk.SMALL, max_retries=0) as generator:
            pid = worker_of(generator)
            with self.assertRaises(darkroom.DeviceError):
                generator.generate("x", **LONG, save_output=False,
                                   on_progress=lambda e: os.kill(pid, signal.SIGKILL) if e.step == 3 else None)
            self.assertEqual(generator.generate("x", **FAST, num_frames=1, save_output=False).seed, 0)

    def test_scheduler(self):
        generator = DiffGenerator.from_pretrained(sdk.SMALL)
        worker, start = worker_of(generator), time.monotonic()
        with self.assertRaisesRegex(darkroom.DeviceError, "signal 9"):
            generator.generate("x", **LONG, save_output=False,
                               on_progress=lambda e: os.kill(scheduler_of(generator), signal.SIGKILL) if e.step == 3 else None)
        self.assertLess(time.monotonic() - start, 10)
        sdk.until(self, lambda: not sdk.alive(worker), 10, "the worker is still there")
        with self.assertRaises(darkroom.DeviceError):
            generator.generate("x", **FAST, save_output=False)
        generator.close()

    def test_attached(self):
        """connect("ipc://…"): two generators on one scheduler; closing one is not the other's end; the scheduler's end is told."""
        with tempfile.TemporaryDirectory() as folder:
            endpoint = f"ipc://{folder}/scheduler"
            process = subprocess.Popen([sdk.PROGRAM, "scheduler", f"--endpoint={endpoint}", f"--model-path={sdk.SMALL}"])
            try:
                first, second = DiffGenerator.connect(endpoint), DiffGenerator.connect(endpoint)
                one = first.generate("x", **FAST, num_frames=1, seed=3, save_output=False)
                first.close()
                two = second.generate("x", **FAST, num_frames=1, seed=3, output_path=folder)
                numpy.testing.assert_array_equal(one.frames, two.frames)
                self.assertTrue(os.path.exists(two.output_path))
                self.assertIsNone(process.poll())
                second.close()
            finally:
                process.terminate()
                self.assertEqual(process.wait(20), 0)
            with self.assertRaises(darkroom.OutOfTimeError):
                DiffGenerator.connect(endpoint, timeout_s=1.0)
        with self.assertRaisesRegex(darkroom.InvalidRequestError, "http://host:port"):
            DiffGenerator.connect("localhost:30000")


class Without(unittest.TestCase):
    def test_numpy_and_pillow(self):
        done = sdk.run_python("""
import sys
sys.modules["numpy"] = sys.modules["PIL"] = None
import darkroom
with darkroom.DiffGenerator.from_pretrained(sys.argv[1]) as generator:
    result = generator.generate("x", width=32, height=32, num_inference_steps=2, num_frames=1, output_path=sys.argv[2])
assert type(result.frames) is memoryview and result.frames.shape == (1, 32, 32, 3), result.frames
with open(result.output_path, "rb") as file:
    rgb, width, height = darkroom.pictures.decode_png(file.read())
assert (rgb, width, height) == (result.frames.tobytes(), 32, 32)
try:
    result.images
except darkroom.UnsupportedError as error:
    print(error)
""", sdk.SMALL, tempfile.mkdtemp(prefix="sdk-test-"))
        self.assertEqual((done.returncode, done.stdout), (0, "images need Pillow: pip install pillow\n"), done.stderr)

    def test_sources_are_plain(self):
        """The package imports without pyzmq, so that connect over HTTP works."""
        done = sdk.run_python("import sys; sys.modules['zmq'] = None; import darkroom; print(darkroom.__version__)")
        self.assertEqual((done.returncode, done.stdout), (0, "0.1.0\n"), done.stderr)


unittest.main()
