#!/usr/bin/env python3
"""darkroom replay and darkroom selftest."""
import json
import os
import re
import shutil
import zlib

from command import ROOT, SMALL, SMALL_FLAGS, TINY, CommandTest, main, png_chunks, read_safetensors, run, write_png, write_safetensors


def edit_recipe(path, change):
    """Rewrites a PNG whose recipe text went through change()."""
    with open(path, "rb") as file:
        chunks = list(png_chunks(file.read()))
    count = 0
    for i, (kind, body) in enumerate(chunks):
        if kind == b"iTXt" and body.startswith(b"darkroom\0"):
            at = body.index(b"{")
            assert body[9] == 0, "a compressed recipe"
            chunks[i] = (kind, body[:at] + change(body[at:].decode()).encode())
            count += 1
    assert count == 1
    write_png(path, chunks)


def set_value(key, value):
    def change(text):
        recipe = json.loads(text)
        recipe[key] = value
        return json.dumps(recipe, ensure_ascii=False)
    return change


class Replay(CommandTest):
    def make(self, *args):
        return self.small("--prompt", "ä", "--num-frames", 1, "--seed", 5, *args)["files"]

    def replay(self, path, *args, code=0, last=None):
        if code == 0:
            done = self.passes("replay", path, *args)
        else:
            done = run("replay", path, *args)
            self.assertEqual(done.returncode, code, done.stderr)
        if last is not None:
            self.assertRegex(done.stdout.splitlines()[-1], last)
        return done

    def test_every_format(self):
        for name, frames in (("png", 1), ("jpg", 1), ("webp", 1), ("gif", 5), ("webm", 5), ("mp4", 5)):
            path = self.small("--prompt", "a <b> & \"c\" ü", "--num-frames", frames, "--output-format", name)["files"][0]
            self.replay(path, last="^equal$")

    def test_picture_and_mask_are_in_the_recipe(self):
        picture, mask = os.path.join(self.folder, "picture.png"), os.path.join(self.folder, "mask.png")
        for source, target in ((self.make()[0], picture), (self.make("--seed", 6)[0], mask)):
            shutil.copy(source, target)
        path = self.make("--image-path", picture, "--mask-path", mask, "--strength", 0.7)[0]
        self.replay(path, last="^equal$")
        shutil.copy(picture, mask)
        done = self.replay(path, code=12)
        self.assertIn("not the mask of the recipe", done.stderr)

    def test_int8_is_in_the_recipe(self):
        path = self.make("--quantization", "int8", "--quantization-max-error", "0.5", "--attention-backend", "sage")[0]
        self.replay(path, last="^equal$")
        self.replay(path, "--quantization", "none", "--attention-backend", "flash", code=12, last="^differs: ")

    def test_ranks_are_in_the_recipe(self):
        for flags, ranks in (((), None), (("--num-gpus", 2, "--sp-degree", 2), {"cfg": 1, "ring": 1, "ulysses": 2, "tp": 1}),
                             (("--num-gpus", 4, "--ring-degree", 2, "--enable-cfg-parallel"), {"cfg": 2, "ring": 2, "ulysses": 1, "tp": 1})):
            path = self.make(*flags)[0]
            told = []
            edit_recipe(path, lambda text, told=told: told.append(json.loads(text)) or text)
            self.assertEqual(told[0].get("ranks"), ranks)
            self.assertNotIn("another layout", self.replay(path, last="^equal$").stderr)
        one = run("replay", path, "--num-gpus", 1)
        self.assertIn("another layout: pixels may differ", one.stderr)
        self.assertRegex(one.stdout, r"^(equal|differs: \d+ of 1024 pixels, largest difference \d+)\n$")
        edit_recipe(path, set_value("ranks", {"cfg": 0, "ring": 1, "ulysses": 1, "tp": 1}))
        self.fails(4, ["'cfg'", "0"], "replay", path)
        edit_recipe(path, set_value("ranks", 2))
        self.fails(4, ["ranks is", "expected an object"], "replay", path)

    def test_int8_and_f32_exclude_each_other(self):
        for flag, value in (("--quantization", "int8"), ("--attention-backend", "sage")):
            done = run("generate", "--prompt", "x", "--dtype", "f32", flag, value)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(f"{flag[2:].replace('-', '_')} is '{value}'", done.stderr)

    def test_flags(self):
        path = self.make("--dtype", "f32", "--negative-prompt", "n", "--sampler", "euler", "--flow-shift", "2.5")[0]
        self.replay(path, "--threads", 1, last="^equal$")
        again = self.replay(path, "--output-path", self.path("again"), last="^equal$").stdout.splitlines()[0]
        self.assertEqual(again, self.path("again/output-5.png"))
        self.replay(again, last="^equal$")
        result = json.loads(self.replay(path, "--json").stdout)
        self.assertEqual((result["equal"], result["pixels"], result["different_pixels"]), (True, 1024, 0))
        other = self.replay(path, "--dtype", "bf16", code=12, last=r"^differs: \d+ of 1024 pixels, largest difference \d+$")
        self.assertNotIn("differs: 0", other.stdout)

    def test_second_output_and_latents(self):
        dump, latents = self.path("dump.safetensors"), self.path("latents.safetensors")
        first, second = self.make("--num-outputs-per-prompt", 2, "--dump-tensors", dump)
        self.replay(second, last="^equal$")
        header, data = read_safetensors(dump)
        entry = header["latents_init"]
        write_safetensors(latents, {"latents_init": ("F32", entry["shape"], data[slice(*entry["data_offsets"])])})
        os.remove(dump)
        first, second = self.make("--num-outputs-per-prompt", 2, "--initial-latents", latents, "--seed", 99)
        self.replay(second, last="^equal$")
        self.assertFalse(os.path.exists(dump))
        write_safetensors(latents, {"latents_init": ("F32", entry["shape"], data[slice(*entry["data_offsets"])])}, {"a": "b"})
        self.fails(12, ["latents.safetensors", "initial latents"], "replay", second)

    def test_tampered(self):
        for key, value in (("seed", "6"), ("prompt", "b"), ("guidance_scale", 2.0), ("frames_sha256", "0" * 64)):
            path = self.make()[0]
            edit_recipe(path, set_value(key, value))
            done = self.replay(path, code=12, last="^differs: ")
            if key == "seed":
                self.assertRegex(done.stdout, r"differs: \d{3,} of 1024 pixels")
        for key, value, code, text in (("width", "32", 4, "width"), ("width", 33, 2, "width is 33"), ("height", 64, 12, "64"),
                                       ("num_frames", 10**9, 4, "num_frames"), ("seed", None, 4, "seed"),
                                       ("sampler", "ddim", 4, "sampler"), ("weights_sha256", [], 4, "weights_sha256")):
            path = self.make()[0]
            edit_recipe(path, set_value(key, value))
            with self.subTest(key=key, value=value):
                self.fails(code, [text], "replay", path)
        path = self.make()[0]
        dump = self.path("stolen.safetensors")
        edit_recipe(path, set_value("dump_tensors", dump))
        self.replay(path, last="^equal$")
        self.assertFalse(os.path.exists(dump))  # a recipe makes no files
        edit_recipe(path, lambda text: "{")
        self.fails(4, [path], "replay", path)

    def test_weights_and_version(self):
        model = shutil.copytree(SMALL, self.path("model"))
        path = self.make()[0]
        edit_recipe(path, set_value("model_path", "/nonexistent/model"))
        self.fails(3, ["/nonexistent/model", "--model-path"], "replay", path)
        self.replay(path, "--model-path", model, last="^equal$")
        name = "transformer/diffusion_pytorch_model.safetensors"
        header, _ = read_safetensors(os.path.join(model, name))
        with open(os.path.join(model, name), "r+b") as file:
            file.seek(-(max(e["data_offsets"][1] for n, e in header.items() if n != "__metadata__") -
                        header["proj_out.bias"]["data_offsets"][0]), os.SEEK_END)
            file.write(b"\0\0\0\x40")  # 2.0
        self.fails(12, [name, "--allow-other-weights"], "replay", path, "--model-path",
                   model)
        done = self.replay(path, "--model-path", model, "--allow-other-weights", code=12)
        self.assertIn("warning", done.stderr)
        edit_recipe(path, set_value("engine", "darkroom 0.0.1"))
        done = self.replay(path, "--model-path", SMALL, last="^equal$")
        self.assertIn("made by darkroom 0.0.1", done.stderr)

    def test_no_recipe(self):
        path = self.path("x.png")
        header = b"\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0"
        write_png(path, [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0\1\2\3")), (b"IEND", b"")])
        self.fails(3, ["x.png", "recipe"], "replay", path)
        self.fails(3, ["none.png"], "replay", self.path("none.png"))
        self.fails(4, ["readme"], "replay", self.write("readme", "text"))


class Selftest(CommandTest):
    def test_passes(self):
        report = json.loads(self.passes("selftest", "--json").stdout)
        self.assertTrue(report["passed"])
        self.assertEqual([c["dtype"] for c in report["checks"]], ["f32", "bf16"])
        self.assertGreater(report["machine"]["cores_available"], 0)
        self.assertIn("norm", report["kernels"])
        self.assertTrue(report["modules"])
        text = self.passes("selftest", "--cpu", "avx2", "--threads", "2").stdout
        for part in ("chosen level", "capped by --cpu", "-f32-", "libx264", "f32", "passed"):
            self.assertIn(part, text)

    def test_finds_a_difference(self):
        models = self.path("models")
        shutil.copytree(TINY, os.path.join(models, "tiny-wan"))
        header, data = read_safetensors(os.path.join(TINY, "selftest.safetensors"))
        metadata = header.pop("__metadata__")
        tensors = {n: (e["dtype"], e["shape"], data[slice(*e["data_offsets"])]) for n, e in header.items()}
        dtype, shape, frames = tensors["frames"]
        tensors["frames"] = (dtype, shape, bytes([(frames[0] + 2) % 256]) + frames[1:])
        write_safetensors(os.path.join(models, "tiny-wan/selftest.safetensors"), tensors, metadata)
        done = run("selftest", env={"DARKROOM_MODELS": models})
        self.assertEqual(done.returncode, 12, done.stderr)
        self.assertRegex(done.stdout, r"f32 +FAILED")
        os.remove(os.path.join(models, "tiny-wan/selftest.safetensors"))
        self.fails(3, ["selftest.safetensors"], "selftest", env={"DARKROOM_MODELS": models})


class Markdown(CommandTest):
    def test_documented(self):
        text = self.passes("parameters").stdout
        help_text = self.passes("generate", "--help").stdout
        for flag in set(re.findall(r"^  (--[a-z-]+)", help_text, re.M)):
            if flag != "--flag":  # the sentence about --flag=value
                self.assertIn(f"`{flag}`", text)
        with open(os.path.join(ROOT, "docs/parameters.md"), encoding="utf-8") as file:
            self.assertEqual(file.read(), text)


if __name__ == "__main__":
    main()
