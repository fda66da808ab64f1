"""What makes outputs: a scheduler over ZeroMQ (local.py) or a server over HTTP (remote.py)."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union

from .errors import DarkroomError
from .events import PreviewEvent, ProgressEvent
from .order import Order
from .result import Output


@dataclass
class Finished:
    """The last word of a generation that succeeded."""

    outputs: list[Output]
    seconds: float
    job_id: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a request will take, without computing it. Of one output."""

    peak_bytes: int
    """That the request needs beside the weights, at its peak."""
    weight_bytes: int
    flops: float
    seconds: float
    step_seconds: float
    num_frames: int
    """As the model will make them."""


Item = Union[ProgressEvent, PreviewEvent, Finished, DarkroomError]
Emit = Callable[[Item], None]
"""Called from another thread; a Finished or a DarkroomError is the last call."""


class Backend(ABC):
    @abstractmethod
    def begin(self, order: Order, emit: Emit) -> Callable[[], None]:
        """Starts an order; raises at once what can be known at once. Returns a function that cancels it, from any thread."""

    @abstractmethod
    def plan(self, order: Order) -> Plan: ...

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """What is at work: "model", "device", "defaults", …"""

    @abstractmethod
    def close(self) -> None: ...
