"""Running `darkroom serve` in tests: a real server in a scratch store. argv[1] of every test is the program."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.abspath(sys.argv.pop(1))
SMALL = os.path.join(ROOT, "tests/golden/wan2.1-t2v/checkpoint")  # random weights, milliseconds per step
QUICK = {"width": 32, "height": 32, "num_inference_steps": 2}


def wait_for(condition, seconds=60, every=0.05):
    """The first true value of condition(), which is asked again and again."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {condition}")
        time.sleep(every)


def children(pid):
    """Processes below pid, as {pid: command line}."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    parent = int(file.read().rsplit(")", 1)[1].split()[1])
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    line = file.read().replace(b"\0", b" ").decode(errors="replace")
            except (OSError, IndexError):
                continue
            found[int(name)] = (parent, line)
    below, grown = {pid}, True
    while grown:
        more = {p for p, (parent, _) in found.items() if parent in below} - below
        grown, below = bool(more), below | more
    return {p: found[p][1] for p in below if p in found and p != pid}


class Server:
    """A server in a store; `with Server(...) as s`."""

    def __init__(self, *flags, store=None, ready=True, program=PROGRAM, env=None):
        self.own = store is None
        self.store = store or tempfile.mkdtemp(prefix="darkroom-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.flags, self.program, self.ready, self.env = flags, program, ready, env
        self.process = None
        self.start()

    def start(self, port=0):
        self.log = open(os.path.join(tempfile.gettempdir(), f"darkroom-test-{os.getpid()}-{id(self)}.log"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [self.program, "serve", "--store-path", os.path.join(self.store, "store"), "--port", str(port), *map(str, self.flags)],
            stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": self.store, **(self.env or {})})  # its sockets go with the store, even after kill -9
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            self.process.wait()
            raise AssertionError(f"no server: {line!r} {self.errors()}")
        self.url = line.split()[2]
        self.port = int(self.url.rsplit(":", 1)[1])
        if self.ready:
            self.wait_ready()

    def wait_ready(self):
        wait_for(lambda: self.status("/health") == 200, 90)

    def errors(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as file:
            return file.read()

    def request(self, path, body=None, method=None, headers=None, timeout=120):
        """(status, headers, bytes)."""
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        request = urllib.request.Request(self.url + path, data, dict(headers or {}), method=method)
        if isinstance(body, (dict, list)):
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                return reply.status, reply.headers, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def json(self, path, body=None, expect=200, **more):
        status, _, data = self.request(path, body, **more)
        assert status == expect, (path, status, data[:500])
        return json.loads(data)

    def status(self, path):
        try:
            return self.request(path, timeout=5)[0]
        except OSError:
            return 0

    def wait_job(self, job, seconds=120):
        """The job when it has ended."""
        path = "/v1/" + job["object"] + "s/" + job["id"]

        def ended():
            found = self.json(path)
            return found if found["status"] in ("completed", "failed", "cancelled") else None
        return wait_for(ended, seconds)

    def processes(self, word=""):
        return [p for p, line in children(self.process.pid).items() if f" {word}" in f" {line}"]

    def stop(self, number=signal.SIGTERM, seconds=60):
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(seconds)
        self.process.stdout.close()
        self.log.close()
        return code

    def close(self):
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)
        os.unlink(self.log.name)
        if self.own:
            shutil.rmtree(self.store, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class ServerTest(unittest.TestCase):
    """One server for all tests of a class."""
    FLAGS = ("--model-path", SMALL)

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.FLAGS)

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    def picture(self, **more):
        return self.server.json("/v1/images/generations", {"prompt": "a cat", "seed": 1, **QUICK, **more})

    def refused(self, status, text, path, body=None, **more):
        got, headers, data = self.server.request(path, body, **more)
        self.assertEqual(got, status, data)
        error = json.loads(data)["error"]
        self.assertIn(text, error["message"])
        self.assertEqual({"message", "type", "param", "code"}, set(error))
        return error


def main():
    unittest.main(verbosity=1)
