"""ZeroMQ to a scheduler: one thread that holds the socket and hands messages to whoever waits for them.

The messages are described in docs/protocol.md.
"""
from __future__ import annotations

import collections
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import zmq

from .errors import CancelledError, DarkroomError, InternalError, InvalidRequestError, NetworkError, of_status
from .program import Scheduler

log = logging.getLogger("darkroom")
VERSION = 1
TICK_MS = 200
QUIET_S = 2.0
SILENT_S = 15.0
HIGH_WATER = 100000

Message = dict[str, Any]
Sink = Callable[[Message, list[bytes]], None]
"""Gets the messages of one task: started, lost, event, result, error, and the made-up type "queued"."""


class Link:
    def __init__(self, endpoint: str, scheduler: Scheduler | None) -> None:
        self._endpoint, self._scheduler, self._pid = endpoint, scheduler, os.getpid()
        self._lock = threading.Lock()
        self._outbox: collections.deque[bytes] = collections.deque()
        self._tasks: dict[str, Sink] = {}
        self._calls: dict[int, Future[Message]] = {}
        self._last_call = 0
        self._stop = False
        self._failure: DarkroomError | None = None
        self._peer = 0  # the scheduler's process
        self._heard = self._asked = time.monotonic()
        self.ready: Future[Message] = Future()
        """The first worker's "ready" message."""
        self.report: Message = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._thread = threading.Thread(target=self._run, name="darkroom-link", daemon=True)
        self._thread.start()

    # Any thread.

    def send(self, **message: Any) -> None:
        text = json.dumps({"v": VERSION, **message}, separators=(",", ":")).encode()
        with self._lock:
            self._outbox.append(text)
            self._wake()

    def submit(self, task: str, sink: Sink, **members: Any) -> None:
        self._check_process()
        with self._lock:
            self._check()
            self._tasks[task] = sink
        self.send(type="submit", task=task, **members)

    def plan(self, request: Message) -> Future[Message]:
        answer: Future[Message] = Future()
        self._check_process()
        with self._lock:
            self._check()
            self._last_call += 1
            call = self._last_call
            self._calls[call] = answer
        self.send(type="plan", call=call, request=request)
        return answer

    def cancel(self, task: str) -> None:
        if os.getpid() == self._pid:
            self.send(type="cancel", task=task)

    def close(self) -> None:
        """Ends the thread and the scheduler that it started."""
        if os.getpid() != self._pid:
            return  # a fork's copy: the thread and the scheduler are the parent's
        with self._lock:
            self._stop = True
            self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise InvalidRequestError("the generator belongs to another process: make one behind the fork")

    def _check(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(self._failure.message)

    def _wake(self) -> None:
        """Under the lock."""
        if self._wake_write >= 0:
            try:
                os.write(self._wake_write, b"w")
            except BlockingIOError:
                pass  # enough bytes wait to wake it up

    # The link's thread.

    def _run(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        try:
            for option in (zmq.SNDHWM, zmq.RCVHWM):
                socket.setsockopt(option, HIGH_WATER)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, 20)
            if self._scheduler is not None:
                self._scheduler.start()
            socket.connect(self._endpoint)
            self._talk(socket)
            self._fail(CancelledError("the generator was closed"))
        except DarkroomError as error:
            self._fail(error)
        except Exception as error:
            log.debug("the link ended", exc_info=True)
            self._fail(NetworkError(f"{self._endpoint}: {error}"))
        finally:
            socket.close()
            context.term()
            if self._scheduler is not None:
                self._scheduler.stop()
            with self._lock:
                os.close(self._wake_read)
                os.close(self._wake_write)
                self._wake_write = -1

    def _talk(self, socket: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(self._wake_read, zmq.POLLIN)
        self.send(type="hello")
        while not self._stop:
            for ready, _ in poller.poll(TICK_MS):
                if ready == self._wake_read:
                    os.read(self._wake_read, 4096)
            self._send_all(socket)
            while socket.poll(0):
                self._take(socket.recv_multipart())
            self._look_around()

    def _send_all(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            with self._lock:
                text = self._outbox.popleft() if self._outbox else None
            if text is None:
                return
            try:
                socket.send(text, zmq.DONTWAIT)
            except zmq.Again:
                raise NetworkError(f"{self._endpoint}: nobody takes messages") from None

    def _look_around(self) -> None:
        failure = self._scheduler.failure() if self._scheduler is not None else None
        if failure is not None:
            raise failure
        now = time.monotonic()
        if now - self._heard > SILENT_S:
            raise NetworkError(f"{self._endpoint}: the scheduler is silent")
        if now - self._heard > QUIET_S and now - self._asked > QUIET_S:
            self._asked = now
            self.send(type="hello")  # it answers with a report

    def _take(self, frames: list[bytes]) -> None:
        self._heard = time.monotonic()
        try:
            header = json.loads(frames[0])
            sizes = header.get("blobs", [])
            if header["v"] != VERSION or sizes != [len(blob) for blob in frames[1:]]:
                raise ValueError("version or sizes")
            kind = header["type"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s sent what is no message: %s", self._endpoint, error)
            return
        if kind == "report":
            self._take_report(header)
        elif kind == "plan":
            with self._lock:
                answer = self._calls.pop(header.get("call", 0), None)
            if answer is not None:
                answer.set_result(header)
        else:
            self._take_task(kind, header, frames[1:])

    def _take_task(self, kind: str, header: Message, blobs: list[bytes]) -> None:
        task = header.get("task", "")
        with self._lock:
            sink = self._tasks.pop(task, None) if kind in ("result", "error") else self._tasks.get(task)
        if sink is not None:
            sink(header, blobs)
        if kind == "result":
            self.send(type="taken", task=task)

    def _take_report(self, header: Message) -> None:
        self.report = header
        if self._peer not in (0, header.get("pid", 0)):
            self._end_tasks(InternalError("the scheduler was started anew and knows no tasks"))
        self._peer = header.get("pid", 0)
        fatal = header.get("fatal")
        if fatal is not None:
            raise of_status(fatal.get("status"), fatal.get("message", ""))
        for worker in header.get("workers", []):
            if worker.get("ready") is not None and not self.ready.done():
                self.ready.set_result(worker["ready"])
        for position, task in enumerate(header.get("queue", [])):
            with self._lock:
                sink = self._tasks.get(task)
            if sink is not None:
                sink({"type": "queued", "task": task, "position": position}, [])

    def _end_tasks(self, error: DarkroomError) -> None:
        with self._lock:
            tasks, self._tasks = self._tasks, {}
            calls, self._calls = self._calls, {}
        for task, sink in tasks.items():
            sink({"type": "error", "task": task, "status": error.status, "message": error.message}, [])
        for answer in calls.values():
            answer.set_exception(error)

    def _fail(self, error: DarkroomError) -> None:
        with self._lock:
            self._failure = error
        if not self.ready.done():
            self.ready.set_exception(error)
        self._end_tasks(error)
