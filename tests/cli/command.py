"""Running the program in tests. argv[1] of every test is its path."""
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SMALL = os.path.join(ROOT, "tests/golden/wan2.1-t2v/checkpoint")  # random weights, milliseconds per step
TINY = os.path.join(ROOT, "models/tiny-wan")
PROGRAM = os.path.abspath(sys.argv.pop(1))
SMALL_FLAGS = ["--model-path", SMALL, "--width", "32", "--height", "32", "--num-inference-steps", "2"]


def run(*args, cwd=None, timeout=240, env=None, stdin=None):
    return subprocess.run([PROGRAM, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=timeout, stdin=stdin,
                          env=None if env is None else dict(os.environ, **env))


def png_chunks(data):
    at = 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size:at + 12 + size])[0] == zlib.crc32(kind + body)
        yield kind, body
        at += size + 12


def write_png(path, chunks):
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, body in chunks:
            file.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))


def read_safetensors(path):
    """The header and the data behind it."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        return json.loads(file.read(size)), file.read()


def write_safetensors(path, tensors, metadata=None):
    """tensors: name -> (dtype, shape, bytes)."""
    header, body = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    if metadata is not None:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + body)


class CommandTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = scratch.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def passes(self, *args, **more):
        done = run(*args, **more)
        self.assertEqual(done.returncode, 0, (args, done.stderr))
        return done

    def fails(self, code, texts, *args, **more):
        """One line on stderr with all the texts."""
        done = run(*args, **more)
        self.assertEqual(done.returncode, code, (args, done.stderr))
        lines = [line for line in done.stderr.splitlines() if line.startswith("darkroom: ")]
        self.assertTrue(lines, done.stderr)
        for text in texts:
            self.assertIn(text, lines[-1])
        return done

    def small(self, *args, **more):
        """One result of the small model as the object of --json."""
        done = self.passes("generate", *SMALL_FLAGS, "--output-path", self.path("out"), "--json", *args, **more)
        return json.loads(done.stdout)


def main():
    unittest.main(verbosity=1)
