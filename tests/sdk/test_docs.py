"""Runs the examples of docs/python-sdk.md and docs/protocol.md, each as a program of its own."""
import os
import re
import subprocess
import sys
import unittest

import sdk


def blocks(name):
    """(line, words behind "python", text) of every example."""
    with open(os.path.join(sdk.ROOT, "docs", name), encoding="utf-8") as file:
        text = file.read()
    return [(text.count("\n", 0, m.start()) + 1, m[1].split(), m[2]) for m in re.finditer(r"```python(.*)\n((?:.*\n)*?)```", text)]


class Docs(sdk.Folder):
    def run_block(self, name, line, text):
        done = subprocess.run([sys.executable, "-B", "-W", "error", "-c", text], cwd=self.folder, capture_output=True, text=True,
                              timeout=120)
        self.assertEqual((done.returncode, done.stderr), (0, ""), f"docs/{name}:{line}")
        return done.stdout

    def test_sdk(self):
        found = [b for b in blocks("python-sdk.md") if "server" not in b[1]]
        self.assertGreaterEqual(len(found), 7)
        said = "".join(self.run_block("python-sdk.md", line, text) for line, _, text in found)
        for text in ("outputs/a-red-circle-on-a-white-background-7.png", "(1, 128, 128, 3)", "denoising",
                     "unknown argument 'num_steps'", "width", "17 frames"):
            self.assertIn(text, said)
        self.assertTrue(os.path.exists(self.path("square-30.webm")))

    def test_protocol(self):
        (line, _, text), = blocks("protocol.md")
        os.mkdir(self.path("scheduler"), 0o700)
        endpoint = f"ipc://{self.folder}/scheduler/socket"
        process = subprocess.Popen([sdk.PROGRAM, "scheduler", "--endpoint", endpoint])
        try:
            self.assertIn("128 x 128 pixels, 49152 bytes", self.run_block("protocol.md", line, text))
        finally:
            process.terminate()
            process.wait(20)


unittest.main()
