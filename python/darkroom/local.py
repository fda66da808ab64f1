"""Generations by a scheduler: a task for each output, put together again."""
from __future__ import annotations

import functools
import mmap
import os
import time
import uuid
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from . import files
from .backend import Backend, Emit, Finished, Plan
from .errors import BusyError, DarkroomError, FileError, FormatError, InternalError, OutOfTimeError, of_status
from .events import PreviewEvent, ProgressEvent
from .link import Link, Message
from .order import LAST_SEED, Order
from .program import Program, Scheduler
from .result import Output, SharedFile

PLAN_S = 30.0
MAPPED_BYTES = 16 << 20
ACCOUNT = "sdk"


class Local(Backend):
    def __init__(self, endpoint: str, program: Program, scheduler: Scheduler | None, ready_timeout_s: float | None) -> None:
        self._program = program
        self._link = Link(endpoint, scheduler)
        try:
            self._ready = self._link.ready.result(ready_timeout_s)
        except FutureTimeout as error:
            self._link.close()
            if isinstance(error, DarkroomError):
                raise
            raise OutOfTimeError(f"no worker was ready after {ready_timeout_s} s") from None
        except BaseException:
            self._link.close()
            raise

    def begin(self, order: Order, emit: Emit) -> Callable[[], None]:
        planned = self._ask_plan(order)
        if planned is not None:
            order.check_frames(int(planned["num_frames"]))
        if order.save_output:
            files.make_folder(order.output_path)
        group = _Group(order, emit, self._link, self._program, planned)
        group.submit()
        return group.cancel

    def plan(self, order: Order) -> Plan:
        planned = self._ask_plan(order)
        if planned is None:
            raise BusyError("no worker is ready", retry_after=1.0)
        return Plan(peak_bytes=int(planned["peak_bytes"]), weight_bytes=int(planned["weight_bytes"]), flops=planned["flops"],
                    seconds=planned["seconds"], step_seconds=planned["step_seconds"], num_frames=int(planned["num_frames"]))

    def _ask_plan(self, order: Order) -> Message | None:
        """Checks the request too. None: no worker is up at the moment."""
        try:
            planned = self._link.plan(request_of(order, 0)).result(PLAN_S)
        except FutureTimeout as error:
            if isinstance(error, DarkroomError):
                raise
            return None
        status = planned.get("status", 0)
        if status == BusyError.status:
            return None
        if status:
            raise of_status(status, planned.get("message", ""))
        return planned

    def info(self) -> dict[str, Any]:
        return {name: value for name, value in self._ready.items() if name not in ("v", "type")} | {
            "workers": self._link.report.get("workers", [])}

    def close(self) -> None:
        self._link.close()


def request_of(order: Order, index: int) -> Message:
    """The engine's request of one output."""
    seed = order.seeds[index] if order.seeds is not None else index & LAST_SEED
    request = {"prompt": order.prompt, **order.parameters, "seed": str(seed)}
    if "initial_latents" in request:
        request["initial_latents_first"] = request.get("initial_latents_first", 0) + index
    return request


def _share(message: Message) -> tuple[memoryview, SharedFile]:
    """The frames of a result: mapped so that changes stay here. A mapping of Python's keeps a descriptor, of which a process may
    have few: small ones are copied."""
    shape = (int(message["frames"]), int(message["height"]), int(message["width"]), 3)
    size = shape[0] * shape[1] * shape[2] * shape[3]
    path = str(message["frames_path"])
    try:
        shared = SharedFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        if size <= 0 or os.fstat(shared.fd).st_size != size:
            raise FormatError(f"{path} does not hold {shape} bytes of frames")
        frames = bytearray(size) if size < MAPPED_BYTES else mmap.mmap(shared.fd, size, access=mmap.ACCESS_COPY)
        if isinstance(frames, bytearray) and os.preadv(shared.fd, [frames], 0) != size:
            raise FormatError(f"{path} cannot be read whole")
    except OSError as error:
        raise FileError(f"the frames at {path}: {error.strerror}; they are shared on one host only") from None
    return memoryview(frames).cast("B", shape), shared


class _Group:
    """The tasks of one order. Messages come from the link's thread only; cancel from any."""

    def __init__(self, order: Order, emit: Emit, link: Link, program: Program, planned: Message | None) -> None:
        self._order, self._emit, self._link, self._program = order, emit, link, program
        self._planned = planned or {}
        self._name = uuid.uuid4().hex
        self._outputs: dict[int, Output] = {}
        self._steps: dict[int, float] = {}  # finished part of each output, 0 to 1
        self._stage: dict[int, str] = {}
        self._seconds = 0.0
        self._ended = False

    def _task(self, index: int) -> str:
        return f"{self._name}/{index}"

    def submit(self) -> None:
        order, timeout_s = self._order, self._order.timeout_s
        deadline_ms = (time.time() + timeout_s) * 1000.0 if timeout_s is not None else 0.0
        for index in range(order.count):
            self._link.submit(
                self._task(index), functools.partial(self._take, index),
                request=request_of(order, index), owner=ACCOUNT, priority=order.priority, deadline_ms=deadline_ms,
                step_seconds=float(self._planned.get("step_seconds", 0.0)), joins=bool(self._planned.get("joins", False)))

    def cancel(self) -> None:
        for index in range(self._order.count):
            self._link.cancel(self._task(index))

    def _take(self, index: int, header: Message, blobs: list[bytes]) -> None:
        if self._ended:
            return
        try:
            self._take_kind(index, header, blobs)
        except DarkroomError as error:
            self._end(error)
        except (KeyError, TypeError, ValueError) as error:
            self._end(InternalError(f"a message '{header.get('type')}' is not what it should be: {error!r}"))

    def _take_kind(self, index: int, header: Message, blobs: list[bytes]) -> None:
        kind = header["type"]
        if kind == "queued":
            if not self._stage:
                self._emit(self._progress(index, status="queued", queue_position=int(header["position"])))
        elif kind in ("started", "lost"):
            self._steps[index] = 0.0
            self._stage[index] = ""
            self._emit(self._progress(index))
        elif kind == "event":
            self._take_event(index, header, blobs)
        elif kind == "result":
            self._take_result(index, header)
        elif kind == "error":
            raise of_status(header["status"], header.get("message", ""))

    def _progress(self, index: int, **more: Any) -> ProgressEvent:
        done = len(self._outputs) + sum(part for i, part in self._steps.items() if i not in self._outputs)
        percent = min(int(100.0 * done / self._order.count), 100)
        return ProgressEvent(**{
            "status": "in_progress", "progress": percent, "stage": self._stage.get(index, ""), "output": index,
            "prompt_index": self._order.prompt_index, **more})

    def _take_event(self, index: int, header: Message, blobs: list[bytes]) -> None:
        kind = header.get("kind")
        if kind == "stage":
            self._stage[index] = str(header.get("stage", ""))
            self._emit(self._progress(index))
        elif kind == "step":
            step, steps = int(header["step"]), int(header["steps"])
            self._steps[index] = step / steps if steps > 0 else 0.0
            waiting = self._order.count - len(self._steps)
            eta = float(header.get("eta_ms", 0.0)) / 1000.0 + waiting * float(self._planned.get("seconds", 0.0))
            self._emit(self._progress(index, step=step, steps=steps, eta_s=eta))
        elif kind == "preview":
            width, height = int(header["width"]), int(header["height"])
            if len(blobs) != 1 or len(blobs[0]) != width * height * 3:
                raise FormatError("a preview's size is not what its header says")
            self._emit(PreviewEvent(width, height, blobs[0], index, self._order.prompt_index))

    def _take_result(self, index: int, header: Message) -> None:
        seed = int(request_of(self._order, index)["seed"])
        output = Output(index=index, seed=seed, width=int(header["width"]), height=int(header["height"]),
                        num_frames=int(header["frames"]), fps=float(header["fps"]))
        output.recipe_text = str(header.get("recipe", ""))
        for timing in header.get("timings", []):
            output.timings[timing["stage"]] = output.timings.get(timing["stage"], 0.0) + timing["ms"] / 1000.0
        output.step_ms = [float(ms) for ms in header.get("step_ms", [])]
        output._pixels, output._shared = _share(header)
        output._program = self._program
        self._outputs[index] = output
        self._seconds += sum(output.timings.values())
        if len(self._outputs) == self._order.count:
            self._ended = True
            self._emit(Finished([self._outputs[i] for i in range(self._order.count)], self._seconds))
        else:
            self._emit(self._progress(index))

    def _end(self, error: DarkroomError) -> None:
        self._ended = True
        self.cancel()
        self._emit(error)
