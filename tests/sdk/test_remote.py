"""connect(url): a generator on a real `darkroom serve`."""
import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

import numpy
import sdk
from PIL import Image
from sdk import FAST, LONG

sys.path.insert(0, os.path.join(sdk.ROOT, "tests/server"))
sys.argv.insert(1, sdk.PROGRAM)
from server import Server  # noqa: E402

import darkroom  # noqa: E402
from darkroom import AsyncDiffGenerator, DiffGenerator  # noqa: E402


class Remote(sdk.Folder):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--model-path", sdk.SMALL, "--api-key", "a-key")
        cls.generator = DiffGenerator.connect(cls.server.url, "a-key")

    @classmethod
    def tearDownClass(cls):
        cls.generator.close()
        cls.server.close()

    def make(self, prompt="a red circle", **more):
        if more.get("save_output", True):
            more["output_path"] = self.path("out")
        return self.generator.generate(prompt, **FAST, **more)

    def jobs(self):
        """id -> status."""
        listed = self.server.json("/v1/jobs?limit=100", headers={"Authorization": "Bearer a-key"})
        return {job["id"]: job["status"] for job in listed["data"]}

    def idle(self):
        return all(status in ("completed", "failed", "cancelled") for status in self.jobs().values())

    def test_pixels_are_those_of_a_local_generator(self):
        result = self.make(num_frames=1, seed=7)
        self.assertEqual(result["output_path"], self.path("out/a-red-circle-7.png"))
        with Image.open(result.output_path) as picture:
            numpy.testing.assert_array_equal(numpy.asarray(picture), result.frames[0])
        with DiffGenerator.from_pretrained(sdk.SMALL) as local:
            alone = local.generate("a red circle", **FAST, num_frames=1, seed=7, save_output=False)
            numpy.testing.assert_array_equal(alone.frames, result.frames)
            self.assertEqual(alone.recipe, result.recipe)
        self.assertEqual(self.jobs()[result.job_id], "completed")
        self.assertGreater(result.generation_time, 0)

    def test_outputs(self):
        result = self.make(num_frames=1, seed=[2 ** 64 - 1, 4], output_format="webp", output_quality=90)
        self.assertEqual(result.seeds, [2 ** 64 - 1, 4])
        self.assertEqual(len(result.images), 2)
        self.assertEqual(sorted(os.listdir(self.path("out"))), [f"a-red-circle-{2 ** 64 - 1}.webp", "a-red-circle-4.webp"])
        copy = result.outputs[0].save(self.path("copy.webp"))
        with open(copy, "rb") as one, open(result.output_path, "rb") as other:
            self.assertEqual(one.read(), other.read())
        with self.assertRaises(darkroom.UnsupportedError):
            result.outputs[0].save(self.path("copy.png"))

    def test_video(self):
        result = self.make(num_frames=5)
        self.assertTrue(result.output_path.endswith(".mp4"))
        self.assertGreater(os.path.getsize(result.output_path), 500)
        self.assertEqual((result["num_frames"], result["width"]), (5, 32))
        with self.assertRaises(darkroom.UnsupportedError):
            result.frames
        with self.assertRaisesRegex(darkroom.UnsupportedError, "over HTTP"):
            self.make(num_frames=5, return_frames=True)
        for name in ("gif", "webm"):
            self.assertTrue(self.make(num_frames=5, output_format=name).output_path.endswith("." + name))

    def test_stream(self):
        events = list(self.generator.stream("x", width=32, height=32, num_inference_steps=400, num_frames=5, save_output=False))
        previews = [e for e in events if e.kind == "preview"]
        self.assertTrue(previews)
        self.assertEqual(len(previews[0].rgb), previews[0].width * previews[0].height * 3)
        steps = [e.step for e in events if e.kind == "progress"]
        self.assertEqual(steps, sorted(steps))
        self.assertGreater(len(set(steps)), 2)
        self.assertEqual(events[-1].kind, "done")
        self.assertEqual([e.kind for e in events].count("done"), 1)

    def test_cancel(self):
        for event in self.generator.stream("x", **LONG, save_output=False):
            if event.kind == "progress" and event.step >= 2:
                break
        sdk.until(self, self.idle, 20, "the job was not cancelled")

    def test_close_cancels(self):
        other, caught, running = DiffGenerator.connect(self.server.url, "a-key"), [], threading.Event()

        def work():
            try:
                other.generate("x", **LONG, save_output=False, on_progress=lambda e: running.set())
            except darkroom.DarkroomError as error:
                caught.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        self.assertTrue(running.wait(20))
        other.close()
        thread.join(20)
        self.assertEqual([type(e) for e in caught], [darkroom.CancelledError])
        sdk.until(self, self.idle, 20, "the job was not cancelled")

    def test_cancelled_by_somebody_else(self):
        def cancel(event):
            for job, status in self.jobs().items():
                if status == "in_progress":
                    self.server.request(f"/v1/videos/{job}/cancel", b"{}", headers={"Authorization": "Bearer a-key"})

        with self.assertRaises(darkroom.CancelledError):
            self.generator.generate("x", **LONG, save_output=False, on_progress=cancel)

    def test_failures(self):
        with self.assertRaisesRegex(darkroom.InvalidRequestError, "multiple"):
            self.generator.generate("x", width=33, height=32, num_frames=1, save_output=False)
        with self.assertRaisesRegex(darkroom.InvalidRequestError, "initial_latents"):
            self.make(num_frames=1, initial_latents="x")
        with self.assertRaises(darkroom.UnknownArgumentError):
            self.make(widht=3)
        with self.assertRaises(darkroom.OutOfTimeError):
            self.generator.generate("x", **LONG, save_output=False, timeout_s=0.5)
        self.assertEqual(self.generator.plan(width=32, height=32, num_frames=5).num_frames, 5)
        self.assertEqual(self.generator.info()["model"], sdk.SMALL)

    def test_keys(self):
        for key in (None, "wrong"):
            with self.assertRaises(darkroom.AccessDeniedError):
                DiffGenerator.connect(self.server.url, key)
        with self.assertRaises(darkroom.InvalidRequestError):
            DiffGenerator.connect(self.server.url, "line\nbreak")

    def test_nobody_there(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            start = time.monotonic()
            with self.assertRaises(darkroom.NetworkError) as caught:
                DiffGenerator.connect(f"http://127.0.0.1:{free.getsockname()[1]}")
        self.assertIsInstance(caught.exception, ConnectionError)
        self.assertLess(time.monotonic() - start, 5)
        with self.assertRaises(darkroom.InvalidRequestError):
            DiffGenerator.connect("http://127.0.0.1:99999")

    def test_async(self):
        async def work():
            async with await AsyncDiffGenerator.connect(self.server.url, "a-key") as generator:
                results = await asyncio.gather(*(generator.generate("x", **FAST, num_frames=1, seed=s, save_output=False)
                                                 for s in range(4)))
                self.assertEqual([r.seed for r in results], list(range(4)))
                task = asyncio.create_task(generator.generate("x", **LONG, save_output=False))
                await asyncio.sleep(0.5)
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
        asyncio.run(work())
        sdk.until(self, self.idle, 20, "the job was not cancelled")

    def test_edit(self):
        """The pictures are sent; what comes back equals a local generator's."""
        picture = numpy.random.default_rng(2).integers(0, 256, (32, 32, 3), numpy.uint8)
        mask = numpy.zeros((32, 32), numpy.uint8)
        mask[8:24, 8:24] = 255
        Image.fromarray(picture).save(self.path("picture.png"))
        Image.fromarray(mask).save(self.path("mask.png"))
        edit = dict(image_path=self.path("picture.png"), mask_path=self.path("mask.png"), strength=0.9, seed=5, num_frames=1)
        result = self.make(**edit)
        with DiffGenerator.from_pretrained(sdk.SMALL) as local:
            alone = local.generate("a red circle", **FAST, **edit, save_output=False)
        numpy.testing.assert_array_equal(result.frames, alone.frames)
        numpy.testing.assert_array_equal(result.frames[0][:8], picture[:8])
        video = self.make(image_path=self.path("picture.png"), strength=0.9, num_frames=5)
        self.assertEqual(video.outputs[0].num_frames, 5)
        with self.assertRaises(darkroom.NotFoundError):
            self.make(num_frames=1, image_path=self.path("none.png"))

    def test_prompts(self):
        results = self.make(["a", "b", "c"], num_frames=1)
        self.assertEqual([r.prompt for r in results], ["a", "b", "c"])
        self.assertEqual(len(os.listdir(self.path("out"))), 3)


class Broken(sdk.Folder):
    def test_a_server_that_is_started_again(self):
        """The job goes on, and so does the generation that waits for it."""
        with Server("--model-path", sdk.SMALL, "--checkpoint-every-s", "0") as server:
            generator, killed = DiffGenerator.connect(server.url), []

            def kill(event):
                if event.step > 20 and not killed:
                    killed.append(event.step)
                    server.stop(signal.SIGKILL)
                    server.process.stdout.close()
                    server.log.close()
                    server.start(server.port)

            result = generator.generate("x", width=32, height=32, num_inference_steps=500, num_frames=5, seed=1,
                                        output_path=self.path("out"), on_progress=kill)
            self.assertEqual(len(killed), 1)
            self.assertTrue(os.path.exists(result.output_path))
            generator.close()

    def test_a_server_that_stays_away(self):
        with Server("--model-path", sdk.SMALL) as server:
            generator = DiffGenerator.connect(server.url, timeout_s=2.0)
            with self.assertRaises(darkroom.NetworkError):
                generator.generate("x", **LONG, save_output=False,
                                   on_progress=lambda e: server.stop(signal.SIGKILL) if e.step >= 2 else None)
            generator.close()


class Docs(sdk.Folder):
    def test_the_example(self):
        import re

        with open(os.path.join(sdk.ROOT, "docs/python-sdk.md"), encoding="utf-8") as file:
            text, = re.findall(r"```python server\n((?:.*\n)*?)```", file.read())
        with Server() as server:
            done = subprocess.run([sys.executable, "-B", "-W", "error", "-c", text.replace("http://127.0.0.1:30000", server.url)],
                                  cwd=self.folder, capture_output=True, text=True, timeout=120)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("(1, 128, 128, 3)", done.stdout)
        self.assertIn("a-blue-square-", done.stdout)


unittest.main()
