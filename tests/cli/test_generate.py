#!/usr/bin/env python3
"""darkroom generate as a user runs it: files, exit codes, one-line errors. argv[1] is the program."""
import os
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

PROGRAM = os.path.abspath(sys.argv.pop(1))


def run(*args, cwd=None):
    return subprocess.run([PROGRAM, *args], cwd=cwd, capture_output=True, text=True, timeout=240)


def png_chunks(data):
    at = 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size:at + 12 + size])[0] == zlib.crc32(kind + body)
        yield kind, body
        at += size + 12


class Generate(unittest.TestCase):
    def test_picture(self):
        with tempfile.TemporaryDirectory() as folder:
            done = run("generate", "--prompt", "a red star on a blue background", "--num-frames", "1", "--seed", "1",
                       "--output-path", folder, "--output-file-name", "star")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout.strip(), f"{folder}/star.png")
            self.assertEqual(os.listdir(folder), ["star.png"])
            with open(done.stdout.strip(), "rb") as file:
                data = file.read()
            chunks = {}
            for kind, body in png_chunks(data):
                chunks[kind] = chunks.get(kind, b"") + body
            self.assertEqual(struct.unpack(">II", chunks[b"IHDR"][:8]), (128, 128))
            recipe = chunks[b"iTXt"].decode()
            for part in ("darkroom\0", '"prompt":"a red star on a blue background"', '"seed":"1"', "frames_sha256",
                         "transformer/diffusion_pytorch_model.safetensors"):
                self.assertIn(part, recipe)
            rows = zlib.decompress(chunks[b"IDAT"])
            self.assertEqual(len(rows), 128 * (1 + 3 * 128))

    def test_video_is_whole(self):
        with tempfile.TemporaryDirectory() as folder:
            done = run("generate", "--prompt", "a green circle moving left", "--num-inference-steps", "2",
                       "--num-frames", "5", "--output-path", folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(done.stdout.strip(), "rb") as file:
                data = file.read()
            self.assertIn(b"ftyp", data[:16])
            self.assertIn(b"moov", data)
            self.assertIn(b"a green circle moving left", data)

    def test_bad_input_names_the_flag_and_writes_nothing(self):
        cases = [
            (["--width", "130"], 2, ["width is 130", "128 and 144"]),
            (["--num-inference-steps", "0"], 2, ["num_inference_steps is 0"]),
            (["--seed", "-1"], 2, ["--seed is '-1'"]),
            (["--dtype", "fp8"], 2, ["dtype is 'fp8'", "bf16, f32"]),
            (["--sampler", "ddim"], 2, ["sampler 'ddim'"]),
            (["--fps", "nan"], 2, ["--fps is 'nan'"]),
            (["--wobble", "1"], 2, ["--wobble"]),
            (["--model-path", "/nonexistent/model"], 3, ["/nonexistent/model"]),
            (["--output-format", "bmp", "--num-inference-steps", "1"], 2, ["png, jpg, jpeg, webp, mp4, webm, gif"]),
            (["--output-file-name", "../x", "--num-inference-steps", "1"], 2, ["--output-file-name is '../x'"]),
        ]
        for flags, code, texts in cases:
            with tempfile.TemporaryDirectory() as folder:
                done = run("generate", "--prompt", "x", "--output-path", folder, *flags)
                last = done.stderr.strip().splitlines()[-1]
                self.assertEqual(done.returncode, code, (flags, done.stderr))
                for text in texts:
                    self.assertIn(text, last)
                self.assertEqual(os.listdir(folder), [])

    def test_help_and_version(self):
        self.assertIn("--guidance-scale", run("generate", "--help").stdout)
        self.assertRegex(run("--version").stdout, r"^darkroom \d+\.\d+\.\d+\n$")
        self.assertEqual(run().returncode, 2)


if __name__ == "__main__":
    unittest.main()
