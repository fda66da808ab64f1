#!/usr/bin/env python3
"""Ctrl-C and SIGTERM stop the work soon, leave no file and exit with 130; the bar on a terminal."""
import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time

from command import PROGRAM, SMALL, SMALL_FLAGS, TINY, CommandTest, main

LONG = ["generate", "--model-path", TINY, "--prompt", "a red star", "--num-inference-steps", "1000", "--num-frames", "5"]
SOON = float(os.environ.get("DARKROOM_TEST_SOON", "1.0"))


def default_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # a test run in the background ignores SIGINT


def wait_for(fd, pattern, seconds=60):
    text, end = "", time.monotonic() + seconds
    while not re.search(pattern, text):
        ready = select.select([fd], [], [], max(0, end - time.monotonic()))[0]
        if not ready:
            raise AssertionError(f"no '{pattern}' in {text!r}")
        try:
            data = os.read(fd, 4096)
        except OSError:  # the terminal's other end is closed
            data = b""
        if not data:
            raise AssertionError(f"ended before '{pattern}': {text!r}")
        text += data.decode(errors="replace")
    return text


def read_rest(fd):
    text = b""
    while True:
        try:
            data = os.read(fd, 4096)
        except OSError:
            data = b""
        if not data:
            return text.decode(errors="replace")
        text += data


class Interrupt(CommandTest):
    def start(self, args, stderr=subprocess.PIPE):
        return subprocess.Popen([PROGRAM, *args, "--output-path", self.path("out")], stdout=subprocess.PIPE, stderr=stderr,
                                preexec_fn=default_signals)

    def stop(self, process, number):
        begin = time.monotonic()
        process.send_signal(number)
        code = process.wait(timeout=60)
        self.assertLess(time.monotonic() - begin, SOON)
        self.assertEqual(code, 130)
        self.assertEqual(process.stdout.read(), b"")
        process.stdout.close()
        self.assertEqual(os.listdir(self.folder), [])

    def test_signals(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start(LONG)
            wait_for(process.stderr.fileno(), "step 2/1000")
            self.stop(process, number)
            self.assertIn("stopped on request", process.stderr.read().decode())
            process.stderr.close()

    def test_json_tells(self):
        process = self.start(LONG + ["--json"])
        wait_for(process.stderr.fileno(), "step 1/1000")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertIn(b'"exit_code":130', out)

    def test_between_prompts(self):
        prompts = self.write("prompts.txt", "one\n" * 500)
        process = self.start(["generate", *SMALL_FLAGS, "--num-frames", "1", "--prompt-file-path", prompts, "--output-file-name",
                              "p.png"])
        wait_for(process.stderr.fileno(), "prompt 3/500")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        for name in os.listdir(self.path("out")):  # what is there is whole
            self.assertRegex(name, r"^p-\d+\.png$")

    def test_download(self):
        with socket.create_server(("127.0.0.1", 0)) as server:  # takes the request and never answers
            os.environ.update(HF_ENDPOINT=f"http://127.0.0.1:{server.getsockname()[1]}", HF_HOME=self.path("hub"))
            try:
                process = self.start(["generate", "--prompt", "x", "--model-path", "some/model"])
            finally:
                del os.environ["HF_ENDPOINT"], os.environ["HF_HOME"]
            server.settimeout(60)
            with server.accept()[0] as connection:
                connection.recv(4096)
                begin = time.monotonic()
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=60)
        self.assertLess(time.monotonic() - begin, SOON + 0.5)
        self.assertEqual(process.returncode, 130)
        self.assertFalse(os.path.exists(self.path("out")))

    def test_convert(self):
        process = subprocess.Popen([PROGRAM, "convert", "--dtype", "f32", TINY, self.path("out")], stderr=subprocess.PIPE,
                                   preexec_fn=default_signals)
        wait_for(process.stderr.fileno(), "MB")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertIn(process.returncode, (0, 130))  # it may have been done already
        self.assertEqual(os.listdir(self.folder), ["out"] if process.returncode == 0 else [])

    def open_terminal(self, columns):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        return ours, theirs

    def test_terminal(self):
        os.environ["TERM"] = "xterm"
        ours, theirs = self.open_terminal(60)
        process = self.start(LONG, stderr=theirs)
        os.close(theirs)
        text = wait_for(ours, r"denoising 3/1000")
        for line in text.split("\r"):
            self.assertLess(len(line.replace("\x1b[K", "")), 60)
        self.assertNotIn("\n", text)
        self.assertRegex(text, r"\[=*>? *\]")
        self.stop(process, signal.SIGINT)
        rest = read_rest(ours)
        os.close(ours)
        self.assertRegex(rest, r"\r\x1b\[Kdarkroom: [^\n]*stopped on request")  # the bar is gone

    def test_bar_ends_clean(self):
        os.environ["TERM"] = "xterm"
        ours, theirs = self.open_terminal(80)
        process = self.start(["generate", "--model-path", SMALL, *SMALL_FLAGS[2:], "--prompt", "x", "--num-frames", "1"],
                             stderr=theirs)
        os.close(theirs)
        out = process.stdout.read().decode()
        self.assertEqual(process.wait(timeout=60), 0)
        process.stdout.close()
        text = read_rest(ours)
        os.close(ours)
        self.assertIn("denoising 2/2", text)
        self.assertTrue(text.endswith("\r\x1b[K"), text[-40:])
        self.assertEqual(out.strip(), self.path("out/x-0.png"))


if __name__ == "__main__":
    main()
