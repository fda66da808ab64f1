"""What comes from outside and is not what it should be: messages of a scheduler that is none, damaged pictures, replies of a server
that is none."""
import http.server
import io
import json
import struct
import tempfile
import threading
import unittest
import zlib

import numpy
import sdk
import zmq
from PIL import Image

import darkroom
from darkroom import DiffGenerator, pictures

PLAN = {"weight_bytes": 1, "peak_bytes": 2, "flops": 3.0, "step_flops": 1.0, "seconds": 4.0, "step_seconds": 1.0, "joins": False}


class Scheduler:
    """Answers as told: `answers` gets a task's name and yields lists of frames or messages."""

    def __init__(self, test, answers):
        self.folder = tempfile.TemporaryDirectory()
        test.addCleanup(self.folder.cleanup)
        self.endpoint, self.answers, self.got, self.pid = f"ipc://{self.folder.name}/s", answers, [], 1
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        test.addCleanup(self.thread.join)
        test.addCleanup(self.stop.set)

    def run(self):
        context = zmq.Context()
        with context.socket(zmq.ROUTER) as socket:
            socket.linger = 0
            socket.bind(self.endpoint)
            while not self.stop.is_set():
                if socket.poll(20):
                    peer, text = socket.recv_multipart()
                    for message in self.reply(json.loads(text)):
                        if isinstance(message, dict):
                            message = [json.dumps({"v": 1, **message}).encode()]
                        socket.send_multipart([peer, *message])
        context.term()

    def reply(self, message):
        self.got.append(message)
        if message["type"] == "hello":
            yield {"type": "report", "pid": self.pid, "workers": [{"state": "idle", "ready": {"model": "m", "device": "none"}}], "queue": []}
        elif message["type"] == "plan":
            yield {"type": "plan", "call": message["call"], "num_frames": message["request"].get("num_frames", 1), **PLAN}
        elif message["type"] == "submit":
            yield from self.answers(message["task"])


class Messages(sdk.Folder):
    def start(self, answers):
        scheduler = Scheduler(self, answers)
        generator = DiffGenerator.connect(scheduler.endpoint)
        self.addCleanup(generator.close)
        return scheduler, generator

    def frames(self, size):
        with open(self.path("frames"), "wb") as file:
            file.write(bytes(range(256)) * (size // 256 + 1))
            file.truncate(size)
        return self.path("frames")

    def result(self, task, size, **more):
        return {"type": "result", "task": task, "frames": 1, "height": 4, "width": 4, "fps": 16.0, "recipe": "{}", "timings": [],
                "step_ms": [], "frames_path": self.frames(size), **more}

    def test_junk_is_passed_over(self):
        def answers(task):
            yield [b""]
            yield [b"no json"]
            yield [b"[]"]
            yield [b'{"v": 2, "type": "error"}']
            yield [b'{"v": 1, "type": "event", "blobs": [3]}', b"12"]
            yield [b'{"v": 1}']
            yield {"type": "news", "task": task}
            yield {"type": "error", "task": "somebody else's", "status": 1, "message": "x"}
            yield {"type": "event", "task": task, "kind": "something new"}
            yield {"type": "plan", "call": 77}
            yield self.result(task, 48)

        scheduler, generator = self.start(answers)
        with self.assertLogs("darkroom", "WARNING"):
            result = generator.generate("x", save_output=False)
        self.assertEqual(result.frames.tobytes(), bytes(range(48)))
        sdk.until(self, lambda: any(m["type"] == "taken" for m in scheduler.got))
        submitted, = (m for m in scheduler.got if m["type"] == "submit")
        self.assertEqual((submitted["request"], submitted["joins"], submitted["step_seconds"]), ({"prompt": "x", "seed": "0"}, False, 1.0))

    def test_previews(self):
        def answers(task):
            yield [json.dumps({"v": 1, "type": "event", "task": task, "kind": "preview", "width": 2, "height": 1, "blobs": [6]}).encode(),
                   b"abcdef"]
            yield self.result(task, 48)

        _, generator = self.start(answers)
        seen = []
        generator.generate("x", save_output=False, on_preview=seen.append)
        self.assertEqual([(p.width, p.height, p.rgb, p.image.size) for p in seen], [(2, 1, b"abcdef", (2, 1))])

    def test_lies(self):
        lies = {
            "sizes": lambda task: self.result(task, 47), "negative": lambda task: self.result(task, 48, frames=-1, width=-4),
            "no file": lambda task: self.result(task, 48, frames_path=self.path("none")),
            "a folder": lambda task: self.result(task, 48, frames_path=self.folder),
            "members": lambda task: {"type": "result", "task": task}, "words": lambda task: self.result(task, 48, width="four"),
            "status": lambda task: {"type": "error", "task": task, "status": 99, "message": "x"},
            "step": lambda task: {"type": "event", "task": task, "kind": "step"},
            "preview": lambda task: [json.dumps({"v": 1, "type": "event", "task": task, "kind": "preview", "width": 2, "height": 2,
                                                 "blobs": [1]}).encode(), b"x"]}
        current = []
        _, generator = self.start(lambda task: iter([current[0](task)]))
        for name, lie in lies.items():
            current[:] = [lie]
            with self.subTest(name), self.assertRaises(darkroom.DarkroomError):
                generator.generate("x", save_output=False)

    def test_a_scheduler_that_is_started_anew(self):
        def answers(task):
            scheduler.pid = 2
            return iter([])

        scheduler, generator = self.start(answers)
        with self.assertRaisesRegex(darkroom.InternalError, "anew"):
            generator.generate("x", save_output=False)  # hello is said again after 2 s without news


class Pictures(unittest.TestCase):
    def png(self, rows, channels=3, colour=2, **more):
        raw = b"".join(bytes([kind]) + row for kind, row in rows)
        width, height = len(rows[0][1]) // channels, len(rows)
        head = struct.pack(">IIBBBBB", more.get("width", width), height, 8, colour, 0, 0, 0)
        chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(raw)[:more.get("cut", 1 << 20)]), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I4s", len(b), k) + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)

    def test_like_pillow(self):
        """Every filter, on random rows."""
        random = numpy.random.default_rng(3)
        for channels, colour in ((3, 2), (4, 6)):
            rows = [(kind, random.integers(0, 256, 7 * channels, numpy.uint8).tobytes()) for kind in (0, 1, 2, 3, 4, 4, 3, 2, 1, 0)]
            data = self.png(rows, channels, colour)
            with Image.open(io.BytesIO(data)) as picture:
                expected = numpy.asarray(picture)[:, :, :3].tobytes()
            self.assertEqual(pictures.decode_png(data), (expected, 7, 10))

    def test_damaged(self):
        rows = [(0, bytes(6)), (0, bytes(6))]
        for data in (b"", b"\x89PNG\r\n\x1a\n", self.png(rows, cut=4), self.png(rows, width=3), self.png([(5, bytes(6))]),
                     self.png(rows, width=1 << 30), self.png(rows)[:40], self.png(rows, colour=3)):
            with self.assertRaises(darkroom.DarkroomError):
                pictures.decode_png(data)


class Replies(unittest.TestCase):
    def serve(self, replies):
        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                reply = replies.get(self.path, (200, b"{}"))
                status, body, *headers = reply.pop(0) if isinstance(reply, list) else reply
                self.send_response(status)
                for header in headers:
                    self.send_header(*header)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def fails(self, kind, replies, call=lambda generator: generator.generate("x", num_frames=1, save_output=False)):
        url = self.serve(replies)
        with self.assertRaises(kind) as caught:
            with DiffGenerator.connect(url, timeout_s=1.0) as generator:
                call(generator)
        return caught.exception

    def test_no_darkroom(self):
        self.fails(darkroom.NotFoundError, {"/health": (404, b"<html>")})
        self.fails(darkroom.NetworkError, {"/v1/parameters": (200, b"<html>")})
        self.fails(darkroom.NetworkError, {})  # a job without an id
        self.fails(darkroom.BusyError, {"/health": (503, b"{}")})

    def test_busy(self):
        busy = self.fails(darkroom.BusyError, {"/v1/images/generations": (
            429, b'{"error": {"message": "the queue is full", "type": "x", "param": null, "code": null}}', ("Retry-After", "3"))})
        self.assertEqual((busy.message, busy.retry_after), ("the queue is full", 3.0))

    def test_jobs_that_fail(self):
        def job(**members):
            return {"/v1/images/generations": (202, b'{"id": "image_1"}'),
                    "/v1/images/image_1/events": (200, b": hello\n\nevent: done\ndata: " + json.dumps(members).encode() + b"\n\n")}

        full = self.fails(darkroom.NoSpaceError, job(status="failed", error={"code": "no_space_left", "message": "full"}))
        self.assertEqual(full.message, "full")
        self.fails(darkroom.CancelledError, job(status="cancelled", error=None))
        self.fails(darkroom.InternalError, job(status="failed", error={"code": "file_missing", "message": "x"}))
        self.fails(darkroom.InternalError, job(status="completed"))
        self.fails(darkroom.InternalError, job(status="completed", outputs=[{"index": 0}], parameters={}))

    def test_done_too_early(self):
        """A stream that ends before its job is opened again."""
        events = [b'event: done\ndata: {"status": "queued"}\n\n', b"",
                  b'event: done\ndata: {"status": "failed", "error": {"code": "out_of_memory", "message": "x"}}\n\n']
        self.fails(darkroom.OutOfMemoryError, {
            "/v1/images/generations": (202, b'{"id": "image_1"}'), "/v1/images/image_1": (200, b'{"status": "in_progress"}'),
            "/v1/images/image_1/events": [(200, text) for text in events]})

    def test_redirects_are_not_followed(self):
        """The key must not go elsewhere."""
        other = self.serve({})
        self.fails(darkroom.DarkroomError, {"/health": (302, b"", ("Location", other + "/health"))})


unittest.main()
