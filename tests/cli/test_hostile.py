#!/usr/bin/env python3
"""Malformed files through the command: exit codes of the status list and one line on stderr."""
import json
import os
import shutil

from command import ROOT, SMALL, SMALL_FLAGS, CommandTest, main, run, write_safetensors

HOSTILE = os.path.join(ROOT, "tests", "hostile")
REFUSED = {3: "not found", 4: "malformed file", 5: "not supported", 12: "results differ"}


def cases(kind):
    with open(os.path.join(HOSTILE, kind, "cases.json"), encoding="utf-8") as file:
        for case in json.load(file)["cases"]:
            yield os.path.join(HOSTILE, case["path"]), case["expected"]


class Hostile(CommandTest):
    def judge(self, done, expected, path):
        self.assertGreaterEqual(done.returncode, 0, (path, done.stderr))  # no signal
        if expected == "accept":
            self.assertEqual(done.returncode, 0, (path, done.stderr))
        if expected == "reject":
            self.assertIn(done.returncode, REFUSED, (path, done.stderr))
        if done.returncode != 0:
            lines = done.stderr.splitlines()
            self.assertEqual(len(lines), 1, lines)
            self.assertRegex(lines[0], r"^darkroom: .{20,}")

    def generate(self, folder):
        return run("generate", "--model-path", folder, *SMALL_FLAGS[2:], "--num-frames", "1", "--prompt", "x",
                   "--save-output=false", "--log-level", "error")

    def test_inspect(self):
        for path, expected in cases("safetensors"):
            with self.subTest(path=path):
                self.judge(run("inspect", path, "--log-level", "error"), expected, path)
        for path, expected in cases("model_index"):
            with self.subTest(path=path):
                done = run("inspect", path, "--log-level", "error")
                self.judge(done, "reject", path)

    def test_generate(self):
        for path, expected in cases("model_index"):
            with self.subTest(path=path):
                self.judge(self.generate(path), expected, path)
        model = shutil.copytree(SMALL, self.path("model"))
        config, weights = os.path.join(model, "vae/config.json"), os.path.join(model, "transformer")
        for path, _ in list(cases("config"))[::5]:  # every parser is the same; the rest is in test_folder_hostile
            with self.subTest(path=path):
                shutil.copyfile(path, config)
                self.judge(self.generate(model), "reject", path)
        shutil.copyfile(os.path.join(SMALL, "vae/config.json"), config)
        os.remove(os.path.join(weights, "diffusion_pytorch_model.safetensors"))
        for path, expected in cases("index"):
            with self.subTest(path=path):
                shutil.copytree(path, weights, dirs_exist_ok=True)
                self.judge(self.generate(model), "reject", path)

    def test_odd_names(self):
        """The message stays one line of UTF-8, whatever the file is called."""
        for name in (b"\xff\xfe", b"new\nline", b"\xe2\x82", b"tab\t\x1b[31m", "ü".encode() * 120):
            path = os.path.join(os.fsencode(self.folder), name)
            with open(path, "wb") as file:
                file.write(b"short")
            done = run("inspect", os.fsdecode(path), "--json")
            self.assertEqual(done.returncode, 4)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertEqual(json.loads(done.stdout)["error"]["exit_code"], 4)


    def test_terminal(self):
        """What a file says cannot steer the terminal that it is listed on."""
        evil = "\x1b[31mred\nline\x7f\u009b"
        file = self.path("evil.safetensors")
        write_safetensors(file, {evil: ("U8", [1], b"x")}, {evil: evil})
        index = {"_class_name": evil, "vae": [evil, evil]}
        self.write("model_index.json", json.dumps(index))
        os.mkdir(self.path("vae"))
        self.write("vae/config.json", json.dumps({"num_layers": evil}))
        shutil.copy(file, self.path("vae"))
        for what in (file, self.folder, self.path("vae")):
            done = self.passes("inspect", what, "--tensors")
            self.assertIn("?[31mred?line", done.stdout)
            self.assertNotRegex(done.stdout, "[\x00-\x09\x0b-\x1f\x7f-\x9f]")
            self.assertNotIn("\nline", done.stdout)


if __name__ == "__main__":
    main()
