"""What a running generation tells."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union

if TYPE_CHECKING:
    from PIL.Image import Image

    from .result import Result


@dataclass(frozen=True)
class ProgressEvent:
    """Where a generation stands. Steps are denoising steps of one output."""

    status: Literal["queued", "in_progress"]
    progress: int
    """Percent of all outputs, from real steps."""
    stage: str = ""
    step: int = 0
    steps: int = 0
    output: int = 0
    eta_s: float | None = None
    """Expected rest, seconds."""
    queue_position: int | None = None
    """0: the next; None: it is not in the queue."""
    prompt_index: int = 0
    """Which of several prompts."""
    kind: Literal["progress"] = "progress"


@dataclass(frozen=True)
class PreviewEvent:
    """A small picture of what the output will be."""

    width: int
    height: int
    rgb: bytes
    """[height][width][3], 8 bits each."""
    output: int = 0
    prompt_index: int = 0
    kind: Literal["preview"] = "preview"

    @property
    def image(self) -> Image:
        """As a Pillow picture."""
        from .pictures import to_image

        return to_image(self.rgb, self.width, self.height)


@dataclass(frozen=True)
class DoneEvent:
    """The end: everything that was made."""

    result: Result
    prompt_index: int = 0
    kind: Literal["done"] = "done"


Event = Union[ProgressEvent, PreviewEvent, DoneEvent]
OnProgress = Callable[[ProgressEvent], Any]
OnPreview = Callable[[PreviewEvent], Any]
