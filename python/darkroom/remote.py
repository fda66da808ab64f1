"""Generations by a server: jobs over HTTP, followed by server-sent events."""
from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

from . import files, pictures
from .backend import Backend, Emit, Finished, Plan
from .errors import (
    BusyError, CancelledError, DarkroomError, InternalError, InvalidRequestError, NetworkError, UnsupportedError, of_code,
    of_http)
from .events import PreviewEvent, ProgressEvent
from .order import Order
from .result import Output

STREAM_S = 60.0  # the server sends a comment every 15 s
PAUSE_S = 0.5
MOST_REPLY = 1 << 32
FINAL = ("completed", "failed", "cancelled")

Json = dict[str, Any]


class Client:
    """Requests to one server; each has a connection of its own, so that any thread may ask."""

    def __init__(self, url: str, api_key: str | None, timeout_s: float) -> None:
        parts = urllib.parse.urlsplit(url)
        if not parts.hostname or parts.query or parts.fragment or parts.username:
            raise InvalidRequestError(f"'{url}' is no address of a server, accepted is http://host:port")
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._host, self._prefix = parts.hostname, parts.path.rstrip("/")
        try:
            self._port = parts.port
        except ValueError:
            raise InvalidRequestError(f"'{url}' has no port from 1 to 65535") from None
        self._context = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key is not None else {}
        if api_key is not None and (not api_key or not all("!" <= c <= "~" for c in api_key)):
            raise InvalidRequestError("api_key: accepted are printable ASCII characters without spaces")

    def open(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json",
             timeout_s: float | None = None) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """The reply to read; failures of all kinds are raised."""
        timeout = self.timeout_s if timeout_s is None else timeout_s
        connection = (http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._context)
                      if self._context is not None else http.client.HTTPConnection(self._host, self._port, timeout=timeout))
        try:
            connection.request(method, self._prefix + path, body,
                               {**self._headers, **({"Content-Type": kind} if body is not None else {})})
            reply = connection.getresponse()
            if reply.status >= 300:
                raise _failure(reply)
            return connection, reply
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if isinstance(error, DarkroomError):
                raise
            raise NetworkError(f"{self.url}: {error or type(error).__name__}") from None
        except DarkroomError:
            connection.close()
            raise

    def fetch(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        connection, reply = self.open(method, path, body, kind)
        try:
            return reply.read(MOST_REPLY)
        except (OSError, http.client.HTTPException) as error:
            raise NetworkError(f"{self.url}: {error or type(error).__name__}") from None
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> Json:
        data = self.fetch(method, path, body, kind)
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise NetworkError(f"{self.url}{path}: the reply is no JSON object; is this a Darkroom server?")
        return value

    def events(self, path: str) -> Iterator[tuple[str, Json]]:
        """Server-sent events until the stream ends."""
        connection, reply = self.open("GET", path, timeout_s=max(STREAM_S, self.timeout_s))
        name, data = "message", b""
        try:
            for line in reply:
                line = line.rstrip(b"\r\n")
                if line.startswith(b"event:"):
                    name = line[6:].strip().decode()
                elif line.startswith(b"data:"):
                    data += line[5:].strip()
                elif not line:
                    if data:
                        yield name, json.loads(data)
                    name, data = "message", b""
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NetworkError(f"{self.url}: {error or type(error).__name__}") from None
        finally:
            connection.close()


def _failure(reply: http.client.HTTPResponse) -> DarkroomError:
    try:
        value = json.loads(reply.read(1 << 20))
        error = value["error"] if isinstance(value["error"], dict) else {}
    except (ValueError, KeyError, TypeError):
        error = {}
    return of_http(reply.status, error, reply.getheader("Retry-After"))


def form_of(fields: Json, uploads: dict[str, str]) -> tuple[bytes, str]:
    """A multipart body of texts and files."""
    boundary, body = secrets.token_hex(16), bytearray()
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value)
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
    for name, path in uploads.items():
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise files.of_os_error(error, path) from None
        body += (f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
                 "Content-Type: application/octet-stream\r\n\r\n").encode()
        body += data + b"\r\n"
    return bytes(body + f"--{boundary}--\r\n".encode()), f"multipart/form-data; boundary={boundary}"


class Remote(Backend):
    def __init__(self, url: str, api_key: str | None, timeout_s: float) -> None:
        self._client = Client(url, api_key, timeout_s)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._wait_ready(time.monotonic() + timeout_s)
        defaults = self._client.ask("GET", "/v1/parameters").get("defaults")
        self._defaults: Json = defaults if isinstance(defaults, dict) else {}

    def _wait_ready(self, end: float) -> None:
        while True:
            try:
                self._client.fetch("GET", "/health")
                return
            except BusyError as error:
                if time.monotonic() > end:
                    raise BusyError(f"{self._client.url}: the model is still being loaded",
                                    retry_after=error.retry_after) from None
            time.sleep(PAUSE_S)

    def begin(self, order: Order, emit: Emit) -> Callable[[], None]:
        kind = self._kind_of(order)
        if kind == "video" and order.return_frames:
            raise UnsupportedError("return_frames: frames of videos do not travel over HTTP, accepted is False; the file does "
                                   "(output_path)")
        if order.save_output:
            files.make_folder(order.output_path)
        path, body, content = self._body(order, kind)
        job = _Job(self, order, emit, f"/v1/{kind}s", self._client.ask("POST", path, body, content))
        with self._lock:
            self._jobs[job.id] = job
        job.follow()
        return job.cancel_soon

    def _kind_of(self, order: Order) -> str:
        """Pictures and videos have routes of their own."""
        frames = order.parameters.get("num_frames")
        if frames is not None:
            order.check_frames(frames)
            return "image" if frames == 1 and order.output_format not in files.VIDEOS else "video"
        if order.output_format is not None:
            return "image" if order.output_format in files.PICTURES else "video"
        return "image" if self._defaults.get("num_frames") == 1 else "video"

    def _body(self, order: Order, kind: str) -> tuple[str, bytes, str]:
        fields = self._fields(order)
        uploads = {}
        picture, mask = fields.pop("image_path", None), fields.pop("mask_path", None)
        if picture is not None:
            uploads["image" if kind == "image" else "input_reference"] = picture
        if mask is not None:
            uploads["mask"] = mask
        if kind == "image":
            fields["async"] = True
        path = "/v1/videos" if kind == "video" else "/v1/images/edits" if uploads else "/v1/images/generations"
        body, content = form_of(fields, uploads) if uploads else (json.dumps(fields).encode(), "application/json")
        return path, body, content

    def _fields(self, order: Order) -> Json:
        fields: Json = {"prompt": order.prompt, **order.parameters, "n": order.count}
        if order.seeds is not None:
            fields["seed"] = str(order.seeds[0]) if order.count == 1 else [str(seed) for seed in order.seeds]
        if order.output_format is not None:
            fields["output_format"] = "jpeg" if order.output_format == "jpg" else order.output_format
        if order.output_quality is not None:
            fields["output_quality"] = order.output_quality
        if order.priority != 0:
            fields["priority"] = order.priority
        if order.timeout_s is not None:
            fields["timeout_s"] = order.timeout_s
        return fields

    def plan(self, order: Order) -> Plan:
        fields = self._fields(order)
        fields.pop("output_format", None)
        planned = self._client.ask("POST", "/v1/plan", json.dumps(fields).encode())
        return Plan(peak_bytes=int(planned.get("peak_bytes", 0)), weight_bytes=int(planned.get("weight_bytes", 0)),
                    flops=float(planned.get("flops", 0)), seconds=float(planned.get("seconds", 0)),
                    step_seconds=float(planned.get("step_seconds", 0)),
                    num_frames=int(planned.get("num_frames") or order.parameters.get("num_frames", 0)))

    def info(self) -> Json:
        info = self._client.ask("GET", "/model_info")
        return {"model": info.get("model_path"), "defaults": self._defaults, **info,
                "workers": self._client.ask("GET", "/server_info").get("workers", [])}

    def forget(self, job: _Job) -> None:
        with self._lock:
            self._jobs.pop(job.id, None)

    @property
    def client(self) -> Client:
        return self._client

    def close(self) -> None:
        if os.getpid() != self._pid:
            return  # a fork's copy: the jobs are the parent's
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
            job.end(CancelledError("the generator was closed"))


class _Job:
    """A job of the server's and the thread that follows it."""

    def __init__(self, owner: Remote, order: Order, emit: Emit, route: str, job: Json) -> None:
        self._owner, self._order, self._emit = owner, order, emit
        if not isinstance(job.get("id"), str):
            raise NetworkError(f"{owner.client.url}{route}: the reply is no job; is this a Darkroom server?")
        self.id: str = job["id"]
        self._path = f"{route}/{urllib.parse.quote(self.id, safe='')}"
        self._lock = threading.Lock()
        self._ended = False

    def follow(self) -> None:
        threading.Thread(target=self._follow, name="darkroom-job", daemon=True).start()

    def cancel_soon(self) -> None:
        """Does not block; Python waits for this thread before it ends."""
        if self._ended:
            return
        self._ended = True
        self._owner.forget(self)
        threading.Thread(target=self.cancel, name="darkroom-cancel").start()

    def cancel(self) -> None:
        try:
            self._owner.client.fetch("POST", f"{self._path}/cancel", b"{}")
        except DarkroomError:
            pass  # it has ended, or the server is gone

    def end(self, item: Finished | DarkroomError) -> None:
        with self._lock:
            ended, self._ended = self._ended, True
        self._owner.forget(self)
        if not ended:
            self._emit(item)

    def _follow(self) -> None:
        try:
            job = self._wait()
            if job is not None:
                self.end(self._finished(job))
        except DarkroomError as error:
            self.end(error)
        except Exception as error:
            self.end(InternalError(f"the server's reply about {self.id} is not what it should be: {error!r}"))

    def _wait(self) -> Json | None:
        """The job when it has ended. A connection that breaks is made again; a server that stays away is an error. A "done" of a job
        that has not ended is the end of that stream only."""
        client, heard = self._owner.client, time.monotonic()
        while not self._ended:
            try:
                for name, value in client.events(f"{self._path}/events"):
                    heard = time.monotonic()
                    if self._ended:
                        return None
                    if name == "done" and value.get("status") in (*FINAL, None):
                        return value
                    self._tell(name, value)
                job = client.ask("GET", self._path)
                heard = time.monotonic()
                if job.get("status") in FINAL:
                    return job
            except (NetworkError, BusyError):
                if time.monotonic() - heard > client.timeout_s:
                    raise
            time.sleep(PAUSE_S)
        return None

    def _tell(self, name: str, value: Json) -> None:
        if name == "progress":
            self._emit(ProgressEvent(
                status="queued" if value.get("status") == "queued" else "in_progress", progress=int(value.get("progress") or 0),
                stage=str(value.get("stage") or ""), step=int(value.get("step") or 0), steps=int(value.get("steps") or 0),
                eta_s=value.get("eta_s"), queue_position=value.get("queue_position"), prompt_index=self._order.prompt_index))
        elif name == "preview":
            png = base64.b64decode(str(value.get("image", "")).partition(",")[2])
            rgb, width, height = pictures.decode_png(png)
            self._emit(PreviewEvent(width, height, rgb, int(value.get("index") or 0), self._order.prompt_index))

    def _finished(self, job: Json) -> Finished | DarkroomError:
        if job["status"] == "completed":
            outputs = [self._output(job, entry) for entry in job["outputs"]]
            return Finished(outputs, float(job.get("inference_time_s") or 0.0), self.id)
        error = job.get("error") or {}
        message = str(error.get("message") or f"the job {self.id} was {job['status']}")
        if job["status"] == "cancelled":
            return CancelledError(message)
        return of_code(error.get("code"), message) or InternalError(message)

    def _output(self, job: Json, entry: Json) -> Output:
        parameters, index = job["parameters"], int(entry["index"])
        picture = entry["format"] in files.PICTURES
        output = Output(index=index, seed=int(entry["seed"]), width=int(parameters["width"]), height=int(parameters["height"]),
                        num_frames=1 if picture else int(parameters["num_frames"]), fps=float(parameters.get("fps") or 0.0))
        output.recipe_text = json.dumps(entry["recipe"]) if entry.get("recipe") else ""
        client, path = self._owner.client, f"{self._path}/content?index={index}"
        output._format = str(entry["format"])
        output._fetch = lambda: client.fetch("GET", path)
        return output
