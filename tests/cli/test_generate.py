#!/usr/bin/env python3
"""darkroom generate as a user runs it: files, names, formats, flags, exit codes, one-line errors."""
import json
import os
import struct
import zlib

from command import SMALL, SMALL_FLAGS, CommandTest, main, png_chunks, read_safetensors, run, write_safetensors

MAGIC = {"png": (0, b"\x89PNG"), "jpg": (0, b"\xff\xd8\xff"), "webp": (8, b"WEBP"), "mp4": (4, b"ftyp"),
         "webm": (0, b"\x1a\x45\xdf\xa3"), "gif": (0, b"GIF8")}


def checksum(result):
    return result["results"][0]["outputs"][0]["frames_sha256"]


class Files(CommandTest):
    def test_picture(self):
        done = self.passes("generate", "--prompt", "a red star on a blue background", "--num-frames", "1", "--seed", "1",
                           "--num-inference-steps", "4", "--output-path", self.folder, "--output-file-name", "star")
        self.assertEqual(done.stdout.strip(), self.path("star.png"))
        self.assertEqual(os.listdir(self.folder), ["star.png"])
        with open(self.path("star.png"), "rb") as file:
            data = file.read()
        chunks = {}
        for kind, body in png_chunks(data):
            chunks[kind] = chunks.get(kind, b"") + body
        self.assertEqual(struct.unpack(">II", chunks[b"IHDR"][:8]), (128, 128))
        recipe = chunks[b"iTXt"].decode()
        for part in ("darkroom\0", '"prompt":"a red star on a blue background"', '"seed":"1"', "frames_sha256",
                     '"model_path":"tiny-wan"', "transformer/diffusion_pytorch_model.safetensors"):
            self.assertIn(part, recipe)
        self.assertEqual(len(zlib.decompress(chunks[b"IDAT"])), 128 * (1 + 3 * 128))

    def test_formats(self):
        for name, extension, frames in (("png", "png", 1), ("jpeg", "jpg", 1), ("jpg", "jpg", 1), ("webp", "webp", 1),
                                        ("mp4", "mp4", 1), ("webm", "webm", 5), ("gif", "gif", 5), ("mp4", "mp4", 5)):
            result = self.small("--prompt", "f", "--num-frames", frames, "--output-format", name)
            path = result["files"][0]
            self.assertTrue(path.endswith("." + extension), path)
            with open(path, "rb") as file:
                at, magic = MAGIC[extension]
                self.assertEqual(file.read(16)[at:at + len(magic)], magic, name)
            os.remove(path)
        self.assertTrue(self.small("--prompt", "f", "--num-frames", 1)["files"][0].endswith(".png"))
        self.assertTrue(self.small("--prompt", "f", "--num-frames", 5)["files"][0].endswith(".mp4"))
        # The rounded number of frames decides: 3 frames become 1.
        self.assertTrue(self.small("--prompt", "g", "--num-frames", 3)["files"][0].endswith(".png"))

    def test_quality_changes_the_size(self):
        sizes = [os.path.getsize(self.small("--prompt", "q", "--num-frames", 1, "--output-format", "jpeg",
                                            "--output-quality", quality)["files"][0]) for quality in (5, 95)]
        self.assertLess(sizes[0], sizes[1])

    def test_names(self):
        long = "Ünï: the  QUICK brown fox / jumps over a lazy dog, twice"
        names = [os.path.basename(self.small("--prompt", long, "--num-frames", 1, "--seed", 9)["files"][0]) for _ in range(3)]
        self.assertEqual(names[0], "n-the-quick-brown-fox-jumps-over-a-lazy-9.png")
        self.assertEqual(names[1:], [names[0][:-4] + "-2.png", names[0][:-4] + "-3.png"])
        self.assertEqual(os.path.basename(self.small("--prompt", "…", "--num-frames", 1)["files"][0]), "output-0.png")
        for _ in range(2):  # a name of the user's is replaced
            self.assertEqual(self.small("--prompt", "n", "--num-frames", 1, "--output-file-name", "x.webp")["files"],
                             [self.path("out/x.webp")])
        files = self.small("--prompt", "n", "--num-frames", 1, "--output-file-name", "y", "--num-outputs-per-prompt", 2)["files"]
        self.assertEqual(files, [self.path("out/y-0.png"), self.path("out/y-1.png")])
        self.assertEqual([name for name in os.listdir(self.path("out")) if name.startswith(".")], [])

    def test_prompt_file(self):
        prompts = self.write("prompts.txt", "one\n\n  \r\ntwo\r\n# three\none\n")
        result = self.small("--prompt-file-path", prompts, "--num-frames", 1)
        self.assertEqual([r["prompt"] for r in result["results"]], ["one", "two", "# three", "one"])
        self.assertEqual([os.path.basename(f) for f in result["files"]], ["one-0.png", "two-0.png", "three-0.png", "one-0-2.png"])
        self.assertEqual(len({checksum({"results": [r]}) for r in result["results"]}), 3)
        named = self.small("--prompt-file-path", prompts, "--num-frames", 1, "--output-file-name", "n")
        self.assertEqual(len(set(named["files"])), 4)
        self.fails(2, ["exclude each other"], "generate", *SMALL_FLAGS, "--prompt", "x", "--prompt-file-path", prompts)
        self.fails(2, ["no prompts"], "generate", *SMALL_FLAGS, "--prompt-file-path", self.write("empty.txt", "\n\n"))
        self.fails(3, ["nothing.txt"], "generate", *SMALL_FLAGS, "--prompt-file-path", self.path("nothing.txt"))

    def test_no_files(self):
        result = self.small("--prompt", "x", "--num-frames", 5, "--save-output", "false")
        self.assertEqual(result["files"], [None])
        self.assertRegex(checksum(result), "^[0-9a-f]{64}$")
        self.assertFalse(os.path.exists(self.path("out")))
        self.assertEqual(len(self.small("--prompt", "x", "--num-frames", 5, "--save-output")["files"]), 1)


class Flags(CommandTest):
    def sha(self, *args):
        return checksum(self.small("--prompt", "a", "--num-frames", 5, "--save-output=false", *args))

    def test_pixels_follow_the_flags(self):
        base = self.sha()
        for flags in (["--threads", 1], ["--threads", 3], ["--seed", 0], ["--device", "cpu"], ["--noise", "torch-cpu"],
                      ["--fps", 30], ["--sampler", "unipc"], ["--output-quality", 3], ["--negative-prompt", ""]):
            self.assertEqual(self.sha(*flags), base, flags)
        different = [["--seed", 1], ["--prompt", "b"], ["--negative-prompt", "c"], ["--num-inference-steps", 3],
                     ["--guidance-scale", 1], ["--guidance-scale", 7.5], ["--flow-shift", 7], ["--sampler", "euler"],
                     ["--sampler", "dpm++"], ["--noise", "philox"], ["--dtype", "f32"], ["--width", 48], ["--height", 48],
                     ["--num-frames", 9]]
        sums = [self.sha(*flags) for flags in different]
        self.assertEqual(len(set(sums + [base])), len(different) + 1)
        self.assertIn("cpu, c, 1 thread", self.small("--prompt", "a", "--cpu", "c", "--threads=1", "--save-output=false")["device"])

    def test_seeds_of_outputs(self):
        both = self.small("--prompt", "a", "--num-outputs-per-prompt", 2, "--seed", 18446744073709551614, "--num-frames", 1)
        outputs = both["results"][0]["outputs"]
        self.assertEqual([o["seed"] for o in outputs], ["18446744073709551614", "18446744073709551615"])
        second = self.small("--prompt", "a", "--seed", 18446744073709551615, "--num-frames", 1)
        self.assertEqual(checksum(second), outputs[1]["frames_sha256"])

    def test_latents_and_dumps(self):
        dump = self.path("dump.safetensors")
        base = self.small("--prompt", "a", "--num-frames", 5, "--dump-tensors", dump, "--num-outputs-per-prompt", 2)
        header, data = read_safetensors(dump)
        self.assertEqual(header["frames"]["shape"], [2, 5, 32, 32, 3])
        start, end = header["latents_init"]["data_offsets"]
        shape = header["latents_init"]["shape"]
        latents = self.path("latents.safetensors")
        write_safetensors(latents, {"latents_init": ("F32", shape, data[start:end])})
        again = self.small("--prompt", "a", "--num-frames", 5, "--seed", 77, "--initial-latents", latents)
        self.assertEqual(checksum(again), checksum(base))
        second = self.small("--prompt", "a", "--num-frames", 5, "--initial-latents", latents, "--initial-latents-first", 1)
        self.assertEqual(checksum(second), base["results"][0]["outputs"][1]["frames_sha256"])
        self.assertIn("initial_latents_sha256", again["results"][0]["outputs"][0]["recipe"])
        self.fails(2, ["2 latents for 1 outputs from latent 2"], "generate", *SMALL_FLAGS, "--prompt", "a", "--num-frames", 5,
                   "--initial-latents", latents, "--initial-latents-first", 2)

    def test_json_and_perf_dump(self):
        perf = self.path("perf.json")
        result = self.small("--prompt", "a", "--num-frames", 5, "--perf-dump-path", perf, "--num-outputs-per-prompt", 2)
        one = result["results"][0]
        self.assertEqual((one["width"], one["height"], one["num_frames"], len(one["outputs"])), (32, 32, 5, 2))
        self.assertEqual(one["outputs"][0]["recipe"]["prompt"], "a")
        self.assertEqual(len(one["step_ms"]), 4)
        with open(perf, encoding="utf-8") as file:
            dump = json.load(file)
        self.assertEqual([s["step"] for s in dump["denoise_steps_ms"]], [0, 1, 2, 3])
        names = [s["name"] for s in dump["steps"]]
        for name in ("text encoding", "denoising", "decoding"):
            self.assertIn(name, names)
        self.assertGreaterEqual(dump["total_duration_ms"], sum(s["duration_ms"] for s in dump["steps"]))
        self.assertEqual(dump["pipeline"], "WanPipeline")
        self.assertRegex(dump["engine"], r"^darkroom \d")
        self.assertRegex(dump["device"], "^cpu, ")
        self.assertGreater(dump["peak_memory_mb"], 1)

    def test_json_failure(self):
        done = self.fails(2, ["--width"], "generate", *SMALL_FLAGS, "--prompt", "x", "--json", "--width", "x")
        error = json.loads(done.stdout)["error"]
        self.assertEqual(error["exit_code"], 2)
        self.assertIn("--width is 'x'", error["message"])

    def test_log_levels(self):
        def stderr(*args):
            return self.passes("generate", *SMALL_FLAGS, "--prompt", "x", "--num-frames", 6, "--output-path", self.folder,
                               *args).stderr
        self.assertEqual(stderr("--log-level", "error"), "")
        usual = stderr()
        self.assertEqual(usual.count("num_frames 6 becomes 5"), 1)
        self.assertIn("step 2/2", usual)
        self.assertNotIn("denoising", usual)
        self.assertIn("denoising: ", stderr("--log-level=info"))

    def test_closed_stdout(self):
        read, write = os.pipe()
        os.close(read)
        import subprocess
        from command import PROGRAM
        done = subprocess.run([PROGRAM, "generate", *SMALL_FLAGS, "--prompt", "x", "--json", "--save-output=false"],
                              stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
        os.close(write)
        self.assertEqual(done.returncode, 6)
        self.assertIn("standard output", done.stderr)


class Failures(CommandTest):
    def test_bad_input_names_the_flag_and_writes_nothing(self):
        cases = [
            (["--width", "130", "--model-path", "tiny-wan"], 2, ["width is 130", "128 and 144"]),
            (["--width", "9000"], 2, ["--width is 9000", "1 to 8192"]),
            (["--width", "12.5"], 2, ["--width is '12.5'", "whole numbers"]),
            (["--width", ""], 2, ["--width is ''"]),
            (["--num-inference-steps", "0"], 2, ["--num-inference-steps is 0", "1 to 1000"]),
            (["--num-outputs-per-prompt", "65"], 2, ["1 to 64"]),
            (["--seed", "-1"], 2, ["--seed is '-1'"]),
            (["--seed", "18446744073709551616"], 2, ["2^64 - 1"]),
            (["--dtype", "fp8"], 2, ["--dtype is 'fp8'", "bf16, f32"]),
            (["--device", "gpu"], 2, ["device is 'gpu'", "cpu"]),
            (["--cpu", "mmx"], 2, ["--cpu is 'mmx'", "avx2"]),
            (["--threads", "-1"], 2, ["--threads is -1", "0 to 1024"]),
            (["--sampler", "ddim"], 2, ["--sampler is 'ddim'", "unipc"]),
            (["--noise", "white"], 2, ["--noise is 'white'", "philox"]),
            (["--fps", "nan"], 2, ["--fps is 'nan'"]),
            (["--fps", "1e9"], 2, ["--fps is 1e9", "1 to 240"]),
            (["--guidance-scale", "-1"], 2, ["--guidance-scale is -1"]),
            (["--flow-shift", "0"], 2, ["--flow-shift is 0"]),
            (["--save-output=perhaps"], 2, ["--save-output is 'perhaps'", "true, false"]),
            (["--log-level", "loud"], 2, ["--log-level is 'loud'", "debug"]),
            (["--wobble", "1"], 2, ["--wobble", "--help"]),
            (["--widht", "1"], 2, ["'--widht'", "did you mean --width?"]),
            (["--num_frame", "1"], 2, ["did you mean --num-frames?"]),
            (["-x"], 2, ["'-x'"]),
            (["a", "prompt"], 2, ["unexpected argument 'a'"]),
            (["--model-path", "/nonexistent/model"], 3, ["/nonexistent/model"]),
            (["--output-format", "bmp"], 2, ["--output-format is 'bmp'", "png, jpeg"]),
            (["--output-format", "png", "--num-frames", "5"], 2, ["5 frames", "mp4"]),
            (["--output-file-name", "a.jpg", "--num-frames", "5"], 2, ["5 frames"]),
            (["--output-file-name", "a.jpg", "--output-format", "png"], 2, ["a.jpg", "'png'"]),
            (["--output-format", "gif", "--fps", "60"], 2, ["--fps is 60", "gif"]),
            (["--output-file-name", "../x"], 2, ["--output-file-name is '../x'"]),
            (["--output-quality", "0"], 2, ["--output-quality is 0", "1 to 100"]),
            (["--initial-latents", "/nonexistent/l"], 3, ["/nonexistent/l"]),
            (["--perf-dump-path", "/nonexistent/p"], 3, ["--perf-dump-path", "/nonexistent"]),
            (["--dump-tensors", "/nonexistent/d"], 3, ["--dump-tensors"]),
            (["--output-path", "/dev/null/x"], 6, ["--output-path", "/dev/null"]),
            (["--config"], 2, ["--config needs a value"]),
        ]
        for flags, code, texts in cases:
            with self.subTest(flags=flags):
                self.fails(code, texts, "generate", "--prompt", "x", *SMALL_FLAGS, "--output-path", self.path("out"), *flags)
                self.assertEqual(os.listdir(self.folder), [])
        self.fails(2, ["--prompt is missing"], "generate", *SMALL_FLAGS)
        self.fails(2, ["unexpected argument"], "selftest", "now")

    def test_broken_model_writes_nothing(self):
        self.fails(3, ["model_index.json"], "generate", "--prompt", "x", "--model-path", self.folder, "--output-path",
                   self.path("out"))
        self.assertEqual(os.listdir(self.folder), [])

    def test_embedded_model_is_looked_for(self):
        self.fails(3, [self.folder + "/tiny-wan", "DARKROOM_MODELS"], "generate", "--prompt", "x",
                   env={"DARKROOM_MODELS": self.folder})
        os.symlink(SMALL, self.path("tiny-wan"))
        done = self.passes("generate", "--prompt", "x", *SMALL_FLAGS[2:], "--json", "--save-output=false", "--model-path",
                           "tiny-wan", env={"DARKROOM_MODELS": self.folder})
        self.assertEqual(json.loads(done.stdout)["model_path"], "tiny-wan")

    def test_bench(self):
        report = json.loads(self.passes("bench", "linear", "--m=16", "--n=16", "--k=16", "--repeats=3", "--json").stdout)
        self.assertGreater(report["gflops"], 0)
        self.fails(2, ["'sort'", "linear, attention"], "bench", "sort")
        self.fails(2, ["--config is missing"], "bench", "model")
        self.fails(3, ["/nonexistent"], "bench", "model", "--config", "/nonexistent")

    def test_help_and_version(self):
        for args in (("generate", "--help"), ("help", "generate"), ("generate", "--prompt", "x", "-h")):
            text = run(*args).stdout
            for part in ("--guidance-scale", "1 to 8192", "default", "Examples", "Exit codes", "130 cancelled"):
                self.assertIn(part, text)
        self.assertRegex(run("--version").stdout, r"^darkroom \d+\.\d+\.\d+\n$")
        listed = run("--help").stdout
        for name in ("generate", "replay", "convert", "inspect", "selftest", "bench"):
            self.assertIn(f"darkroom {name}", listed)
            self.assertIn("Examples", run(name, "--help").stdout)
        self.assertNotIn("darkroom parameters", listed)
        self.assertEqual(run().returncode, 2)
        self.assertIn("did you mean generate?", run("genrate").stderr)


if __name__ == "__main__":
    main()
