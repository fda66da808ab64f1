"""What a local generator makes, tells and refuses."""
import json
import os
import subprocess
import threading
import time
import unittest

import numpy
import sdk
from PIL import Image
from sdk import FAST, LONG

import darkroom
from darkroom import DiffGenerator, InvalidRequestError


def setUpModule():
    global generator
    generator = DiffGenerator.from_pretrained(sdk.SMALL)


def tearDownModule():
    generator.close()


def program(*args):
    done = subprocess.run([sdk.PROGRAM, *args], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pixels(path):
    with Image.open(path) as picture:
        return numpy.asarray(picture.convert("RGB"))


class Made(sdk.Folder):
    def make(self, prompt="a red circle", **more):
        if more.get("save_output", True):
            more["output_path"] = self.path("out")
        return generator.generate(prompt, **FAST, **more)

    def test_picture(self):
        result = self.make(num_frames=1, seed=7)
        self.assertEqual(result["output_path"], self.path("out/a-red-circle-7.png"))
        self.assertEqual(result.frames.shape, (1, 32, 32, 3))
        numpy.testing.assert_array_equal(pixels(result.output_path), result.frames[0])
        numpy.testing.assert_array_equal(numpy.asarray(result.images[0]), result.frames[0])
        self.assertEqual(result.recipe["prompt"], "a red circle")
        self.assertGreater(result.outputs[0].timings["denoising"], 0)
        self.assertEqual(len(result.outputs[0].step_ms), 2)
        self.assertTrue(json.loads(program("replay", result.output_path, "--model-path", sdk.SMALL, "--json"))["equal"])

    def test_same_as_the_command(self):
        result = self.make(num_frames=1, seed=11, guidance_scale=4.0, negative_prompt="blue")
        told = json.loads(program("generate", "--model-path", sdk.SMALL, "--prompt", "a red circle", "--width", "32", "--height", "32",
                                  "--num-frames", "1", "--num-inference-steps", "2", "--seed", "11", "--guidance-scale", "4",
                                  "--negative-prompt", "blue", "--output-path", self.path("command"), "--json"))
        self.assertEqual(os.listdir(self.path("command")), [os.path.basename(result.output_path)])
        path = self.path("command/" + os.path.basename(result.output_path))
        self.assertIn(os.path.basename(path), json.dumps(told))
        numpy.testing.assert_array_equal(pixels(path), result.frames[0])

    def test_outputs_are_those_of_their_seeds(self):
        three = self.make(num_frames=1, seed=[5, 2 ** 64 - 1, 6], save_output=True)
        self.assertEqual(three.seeds, [5, 2 ** 64 - 1, 6])
        self.assertEqual(len(set(three.output_paths)), 3)
        for output in three.outputs:
            alone = self.make(num_frames=1, seed=output.seed)
            numpy.testing.assert_array_equal(alone.frames, output.frames)
        self.assertEqual(self.make(num_frames=1, seed=5, num_outputs_per_prompt=2).seeds, [5, 6])
        self.assertFalse(numpy.array_equal(three.outputs[0].frames, three.outputs[1].frames))

    def test_several_prompts(self):
        results = self.make(["a", "b"], num_frames=1, num_outputs_per_prompt=2)
        self.assertEqual([r.prompt for r in results], ["a", "b"])
        self.assertEqual(sorted(os.listdir(self.path("out"))), ["a-0.png", "a-1.png", "b-0.png", "b-1.png"])
        numpy.testing.assert_array_equal(results[1].outputs[1].frames, self.make("b", num_frames=1, seed=1).frames)

    def test_video_and_formats(self):
        result = self.make(num_frames=5)
        self.assertEqual(result.frames.shape, (5, 32, 32, 3))
        self.assertTrue(result.output_path.endswith(".mp4"))
        self.assertEqual(len(result.images), 5)
        for extension in ("mp4", "webm", "gif"):
            path = result.outputs[0].save(self.path(f"x.{extension}"))
            self.assertGreater(os.path.getsize(path), 100)
        for extension in ("jpeg", "webp"):
            result = self.make(num_frames=1, output_format=extension, output_quality=95)
            self.assertTrue(result.output_path.endswith("." + extension))
            self.assertLess(numpy.abs(pixels(result.output_path).astype(int) - result.frames[0]).mean(), 20)

    def test_names(self):
        first, second = self.make(num_frames=1), self.make(num_frames=1)
        self.assertEqual([os.path.basename(r.output_path) for r in (first, second)], ["a-red-circle-0.png", "a-red-circle-0-2.png"])
        for _ in range(2):
            named = self.make(num_frames=1, output_file_name="mine.webp")
            self.assertEqual(named.output_path, self.path("out/mine.webp"))
        many = self.make(num_frames=1, output_file_name="many", num_outputs_per_prompt=2)
        self.assertEqual(many.output_paths, [self.path("out/many-0.png"), self.path("out/many-1.png")])
        self.assertEqual([n for n in os.listdir(self.path("out")) if n.startswith(".")], [])

    def test_names_like_the_command(self):
        from darkroom.files import slug

        for prompt in ("Ein Käfer, rot!", "", "ÄÖ", "x" * 60, "one two three four five six seven eight nine ten", "ends here " * 9,
                       "abcdefghi " * 4, "a" * 39 + " b"):
            program("generate", "--model-path", sdk.SMALL, "--prompt", prompt, "--width", "16", "--height", "16", "--num-frames", "1",
                    "--num-inference-steps", "1", "--output-path", self.path("slug"))
            self.assertEqual(os.listdir(self.path("slug")), [f"{slug(prompt)}-0.png"], prompt)
            os.unlink(self.path(f"slug/{slug(prompt)}-0.png"))

    def test_frames(self):
        kept = self.make(num_frames=1, return_frames=True, save_output=False)
        self.assertIs(type(kept["frames"]), numpy.ndarray)
        self.assertIsNone(kept["output_path"])
        kept.frames[:] = 7  # a copy-on-write mapping: the array is the caller's
        self.assertEqual(int(kept.frames.sum()), 7 * kept.frames.size)
        dropped = self.make(num_frames=1, return_frames=False)
        with self.assertRaisesRegex(darkroom.UnsupportedError, "return_frames=True"):
            dropped.frames
        self.assertFalse(os.path.exists(self.path("out2")))
        self.make(num_frames=1, save_output=False)
        self.assertEqual(len(os.listdir(self.path("out"))), 1)

    def test_no_memory_or_files_are_kept(self):
        before = len(os.listdir("/proc/self/fd"))
        results = [self.make(num_frames=1) for _ in range(20)]
        self.assertEqual((len(results), len(os.listdir("/proc/self/fd"))), (20, before))
        pid = generator._backend._link._scheduler.process.pid
        sdk.until(self, lambda: not any("memfd" in self.link(pid, n) for n in os.listdir(f"/proc/{pid}/fd")), 5,
                  "the scheduler holds frames that were taken")

    def link(self, pid, name):
        try:
            return os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            return ""

    def test_initial_latents_count_up(self):
        """Output i starts from latent first + i, as in the command."""
        shape, latents = [3, 16, 1, 4, 4], numpy.random.default_rng(1).standard_normal((3, 16, 1, 4, 4), numpy.float32)
        header = json.dumps({"latents": {"dtype": "F32", "shape": shape, "data_offsets": [0, latents.nbytes]}}).encode()
        with open(self.path("latents.safetensors"), "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header + latents.tobytes())
        both = self.make(num_frames=1, initial_latents=self.path("latents.safetensors"), initial_latents_first=1,
                         num_outputs_per_prompt=2, save_output=False)
        for i, output in enumerate(both.outputs, 1):
            alone = self.make(num_frames=1, initial_latents=self.path("latents.safetensors"), initial_latents_first=i,
                              save_output=False)
            numpy.testing.assert_array_equal(alone.frames, output.frames)
        self.assertFalse(numpy.array_equal(both.outputs[0].frames, both.outputs[1].frames))
        with self.assertRaises(darkroom.DarkroomError):
            self.make(num_frames=1, initial_latents=self.path("none.safetensors"))

    def test_edit(self):
        """Outside of the mask the picture keeps its pixels."""
        picture = numpy.random.default_rng(2).integers(0, 256, (32, 32, 3), numpy.uint8)
        mask = numpy.zeros((32, 32), numpy.uint8)
        mask[:, 16:] = 255
        Image.fromarray(picture).save(self.path("picture.png"))
        Image.fromarray(mask).save(self.path("mask.png"))
        result = self.make(num_frames=1, image_path=self.path("picture.png"), mask_path=self.path("mask.png"), strength=1.0)
        numpy.testing.assert_array_equal(result.frames[0][:, :16], picture[:, :16])
        self.assertFalse(numpy.array_equal(result.frames[0][:, 16:], picture[:, 16:]))
        with self.assertRaisesRegex(InvalidRequestError, "strength"):
            self.make(num_frames=1, image_path=self.path("picture.png"), strength=2)
        with self.assertRaises(darkroom.NotFoundError):
            self.make(num_frames=1, image_path=self.path("none.png"))


class Told(sdk.Folder):
    def test_stream(self):
        events = list(generator.stream("x", num_frames=1, width=32, height=32, num_inference_steps=6, num_outputs_per_prompt=2,
                                       output_path=self.folder))
        self.assertEqual(events[-1].kind, "done")
        self.assertEqual([e.kind for e in events[:-1]].count("done"), 0)
        steps = [(e.output, e.step, e.steps) for e in events if e.kind == "progress" and e.step > 0]
        self.assertEqual(sorted(steps), [(o, s, 6) for o in range(2) for s in range(1, 7)])
        percents = [e.progress for e in events if e.kind == "progress"]
        self.assertEqual(percents, sorted(percents))
        self.assertEqual((percents[0], percents[-1]), (0, 100))
        self.assertIn("denoising", [e.stage for e in events if e.kind == "progress"])
        self.assertEqual(len(events[-1].result.outputs), 2)

    def test_previews(self):
        """Small pictures, that come to resemble the frame."""
        seen = []
        with DiffGenerator.from_pretrained(os.path.join(sdk.ROOT, "models/tiny-wan")) as tiny:
            result = tiny.generate("a red circle on a white background", num_frames=1, num_inference_steps=40, save_output=False,
                                   on_preview=seen.append)
        self.assertTrue(seen)
        last = numpy.frombuffer(seen[-1].rgb, numpy.uint8).reshape(seen[-1].height, seen[-1].width, 3)
        small = numpy.asarray(result.images[0].resize((seen[-1].width, seen[-1].height), Image.Resampling.BOX))
        self.assertGreater(numpy.corrcoef(last.ravel(), small.ravel())[0, 1], 0.5)
        self.assertEqual(seen[-1].image.size, (seen[-1].width, seen[-1].height))

    def test_callbacks_and_queue(self):
        """While a long one runs, the next ones learn where they stand; the higher priority is first."""
        started, seen = threading.Event(), []
        long = threading.Thread(target=lambda: self.drain(started, seen))
        long.start()
        self.assertTrue(started.wait(20))
        waiting = generator.stream("low", **FAST, num_frames=1, save_output=False, priority=-1)
        first = next(waiting)
        self.assertEqual((first.status, first.queue_position), ("queued", 0))
        high = generator.stream("high", **FAST, num_frames=1, save_output=False, priority=5)
        self.assertEqual((next(high).queue_position), 0)
        moved = next(e for e in waiting if e.queue_position != 0)
        self.assertEqual((moved.status, moved.queue_position), ("queued", 1))
        seen.append("stop")
        self.assertEqual(list(high)[-1].kind, "done")
        self.assertEqual(list(waiting)[-1].kind, "done")
        long.join(20)

    def drain(self, started, seen):
        for event in generator.stream("long", **LONG, save_output=False):
            if event.kind == "progress" and event.step > 0:
                started.set()
            if seen:
                return

    def test_leaving_cancels(self):
        for event in generator.stream("long", **LONG, save_output=False):
            if event.kind == "progress" and event.step == 2:
                break
        start = time.monotonic()
        generator.generate("x", **FAST, num_frames=1, save_output=False)
        self.assertLess(time.monotonic() - start, 5)

    def test_an_exception_in_a_callback_cancels(self):
        class Mine(Exception):
            pass

        def stop(event):
            if event.step == 2:
                raise Mine

        with self.assertRaises(Mine):
            generator.generate("long", **LONG, save_output=False, on_progress=stop)
        start = time.monotonic()
        generator.generate("x", **FAST, num_frames=1, save_output=False)
        self.assertLess(time.monotonic() - start, 5)

    def test_one_failure_ends_its_order_only(self):
        """Two prompts: the second is refused at once, the first is not left behind."""
        with self.assertRaises(InvalidRequestError):
            generator.generate(["x", "y" * 70000], **LONG, save_output=False)
        sdk.until(self, lambda: all(w["state"] == "idle" for w in generator.info()["workers"]), 10, "a worker is still busy")

    def test_timeout(self):
        start = time.monotonic()
        with self.assertRaises(darkroom.OutOfTimeError) as caught:
            generator.generate("long", **LONG, save_output=False, timeout_s=0.5)
        self.assertIsInstance(caught.exception, TimeoutError)
        self.assertLess(time.monotonic() - start, 10)

    def test_threads(self):
        alone = {seed: generator.generate("x", **FAST, num_frames=1, seed=seed, save_output=False).frames for seed in range(8)}
        made = {}

        def work(seed):
            made[seed] = generator.generate("x", **FAST, num_frames=1, seed=seed, save_output=False).frames

        threads = [threading.Thread(target=work, args=(seed,)) for seed in alone]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for seed, frames in alone.items():
            numpy.testing.assert_array_equal(made[seed], frames)

    def test_plan_and_info(self):
        plan = generator.plan(width=32, height=32, num_frames=6)
        self.assertEqual(plan.num_frames, 5)
        self.assertIn("cpu", generator.info()["device"])
        self.assertEqual(generator.info()["model"], sdk.SMALL)


class Refused(sdk.Folder):
    def refuse(self, texts, *args, kind=InvalidRequestError, **more):
        start = time.monotonic()
        with self.assertRaises(kind) as caught:
            generator.generate(*(args or ("x",)), **{"save_output": False, **more})
        for text in texts:
            self.assertIn(text, str(caught.exception))
        self.assertLess(time.monotonic() - start, 2)
        return caught.exception

    def test_requests(self):
        self.refuse(["'num_step'", "Accepted are"], num_step=4)
        self.assertIsInstance(self.refuse(["did you mean width?"], widht=4), TypeError)
        self.refuse(["dump_tensors", "darkroom generate"], dump_tensors="x")
        self.refuse(["width is '32'", "a whole number"], width="32")
        self.refuse(["width is True"], width=True)
        self.refuse(["guidance_scale", "a number"], guidance_scale="much")
        self.refuse(["sampler", "euler", "unipc"], sampler="ddim")
        self.refuse(["num_inference_steps", "1 to 1000"], num_inference_steps=0)
        self.refuse(["width", "multiple"], width=33, height=32)
        self.refuse(["seed is -1", "2^64 - 1"], seed=-1)
        self.refuse(["seed has 2 entries"], seed=[1, 2], num_outputs_per_prompt=3)
        self.refuse(["outputs of a prompt, accepted are 1 to 64"], num_outputs_per_prompt=0)
        self.refuse(["prompt", "a text"], 5)
        self.refuse(["prompt", "not empty"], [])
        self.refuse(["output_path means nothing with save_output=False"], output_path="x")
        self.refuse(["output_format is 'bmp'", "png"], save_output=True, output_format="bmp")
        self.refuse(["output_format is png", "num_frames 5", "mp4"], save_output=True, output_format="png", num_frames=5,
                    width=32, height=32, output_path=self.path("new"))
        self.assertFalse(os.path.exists(self.path("new")))
        self.refuse(["output_file_name", "a plain name"], save_output=True, output_file_name="../x.png")
        self.refuse(["output_quality", "1 to 100"], save_output=True, output_quality=0)
        self.refuse(["timeout_s", "above 0"], timeout_s=0)
        self.refuse(["priority", "-10 to 10"], priority=11)
        with open(self.path("file"), "w", encoding="utf-8"):
            pass
        self.refuse([self.path("file")], kind=darkroom.FileError, save_output=True, output_path=self.path("file"))

    def test_numpy_numbers(self):
        result = generator.generate("x", width=numpy.int64(32), height=numpy.int32(32), num_frames=numpy.int8(1), save_output=False,
                                    num_inference_steps=2, seed=numpy.uint64(2 ** 64 - 1), guidance_scale=numpy.float32(1))
        self.assertEqual((result.seed, result.frames.shape), (2 ** 64 - 1, (1, 32, 32, 3)))

    def open(self, kind, texts, *args, **more):
        with self.assertRaises(kind) as caught:
            DiffGenerator.from_pretrained(*(args or (sdk.SMALL,)), **more).close()
        for text in texts:
            self.assertIn(text, str(caught.exception))

    def test_engines(self):
        self.open(darkroom.UnknownArgumentError, ["'num_gpu'", "did you mean num_gpus?"], num_gpu=2)
        self.open(InvalidRequestError, ["--num-gpus", "1 to 64"], num_gpus=0)
        self.open(InvalidRequestError, ["attention", "flash"], attention_backend="magic")
        self.open(InvalidRequestError, ["dp_size", "num_gpus"], num_gpus=2, dp_size=3)
        self.open(InvalidRequestError, ["sp_degree is 4"], num_gpus=4, sp_degree=4, ulysses_degree=3)
        self.open(InvalidRequestError, ["tp_size 2", "num_gpus is 3"], num_gpus=3, tp_size=2)
        self.open(darkroom.DarkroomError, [self.path("none")], self.path("none"))
        self.open(darkroom.NotFoundError, ["no program", "program"], program=self.path("none"))
        self.open(darkroom.OutOfTimeError, ["0.0"], ready_timeout_s=0.0)


unittest.main()
