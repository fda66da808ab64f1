"""What a generation made."""
from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import pictures
from .errors import UnsupportedError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from PIL.Image import Image

    from .program import Program


class SharedFile:
    """An open file of frames; closed with the last reference."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()


class Output:
    """One picture or video: its pixels, its file, the recipe that made it."""

    def __init__(self, *, index: int, seed: int, width: int, height: int, num_frames: int, fps: float) -> None:
        self.index = index
        self.seed = seed
        self.width = width
        self.height = height
        self.num_frames = num_frames
        self.fps = fps
        self.path: str | None = None
        """The saved file; None: not saved."""
        self.recipe_text = ""
        """The recipe as it was written, JSON; "" when it is not known."""
        self.timings: dict[str, float] = {}
        """Seconds of each stage."""
        self.step_ms: list[float] = []
        """Milliseconds of each denoising step."""
        self._pixels: memoryview | None = None
        self._shared: SharedFile | None = None
        self._program: Program | None = None
        self._fetch: Callable[[], bytes] | None = None
        self._file: bytes | None = None
        self._format = ""

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything that made this output: `darkroom replay` makes it again."""
        return json.loads(self.recipe_text) if self.recipe_text else {}

    @property
    def buffer(self) -> memoryview:
        """The pixels, [num_frames][height][width][3], 8-bit RGB. UnsupportedError when they are not here."""
        if self._pixels is None:
            if self._fetch is None:
                raise UnsupportedError("the frames were not kept: generate with return_frames=True")
            if self._format not in ("png", "jpg", "jpeg", "webp"):
                raise UnsupportedError("frames of videos do not travel over HTTP; the file does, see output_path")
            pixels, self.width, self.height = pictures.decode(self.encoded)
            self._pixels = pixels.cast("B", (1, self.height, self.width, 3))
        return self._pixels

    @property
    def encoded(self) -> bytes:
        """The file as the server made it; UnsupportedError for a local generator, which has `save`."""
        if self._file is None:
            if self._fetch is None:
                raise UnsupportedError("a local generator has no encoded file: use save")
            self._file = self._fetch()
        return self._file

    @property
    def frames(self) -> NDArray[numpy.uint8]:
        """The pixels as a numpy array, [num_frames][height][width][3]; without numpy a memoryview of that shape."""
        array: NDArray[numpy.uint8] = pictures.to_array(self.buffer)
        return array

    @property
    def images(self) -> list[Image]:
        """The frames as Pillow pictures."""
        rgb = self.buffer.cast("B")
        size = self.width * self.height * 3
        return [pictures.to_image(rgb[i * size:(i + 1) * size], self.width, self.height) for i in range(self.num_frames)]

    def save(self, path: str | os.PathLike[str], quality: int | None = None) -> str:
        """Writes a file with the recipe inside; its extension chooses the format: png, jpg, webp for one frame, mp4, webm, gif
        for any number. An old file is replaced. Returns the path. A result that came over HTTP is saved as the server made it."""
        target = os.path.abspath(os.fspath(path))
        if self._program is not None:
            self._program.encode(self, target, quality)
            return target
        from .files import write_whole

        extension = os.path.splitext(target)[1].lstrip(".").lower()
        if extension.replace("jpeg", "jpg") != self._format.replace("jpeg", "jpg") or quality is not None:
            raise UnsupportedError(f"{target}: the server made a file '.{self._format}'; ask for another one with output_format "
                                   "and output_quality")
        write_whole(target, self.encoded)
        if self.num_frames > 1:
            self._file = None  # big, and the server has it
        return target

    def _drop(self) -> None:
        """Forgets the pixels."""
        self._pixels = None
        self._fetch = None
        self._release()

    def _release(self) -> None:
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def __repr__(self) -> str:
        return f"Output({self.num_frames} frames of {self.width} x {self.height}, seed {self.seed}, path {self.path!r})"


class Result(dict[str, Any]):
    """What was made for one prompt. Also a dictionary, with SGLang's keys: 'output_path', 'output_paths', 'prompt', 'seed',
    'width', 'height', 'num_frames', 'fps', 'generation_time', 'timings', and 'frames' when return_frames was True."""

    def __init__(self, prompt: str, outputs: list[Output], seconds: float, job_id: str | None, with_frames: bool) -> None:
        first = outputs[0]
        super().__init__(
            prompt=prompt, output_path=first.path, output_paths=[o.path for o in outputs], seed=first.seed,
            seeds=[o.seed for o in outputs], width=first.width, height=first.height, num_frames=first.num_frames, fps=first.fps,
            generation_time=seconds, timings=first.timings)
        self.outputs = outputs
        self.job_id = job_id
        """The server's name of the job; None: no server was asked."""
        if with_frames:
            self["frames"] = first.frames if len(outputs) == 1 else [o.frames for o in outputs]

    @property
    def prompt(self) -> str:
        return str(self["prompt"])

    @property
    def output_path(self) -> str | None:
        """The first file."""
        return self.outputs[0].path

    @property
    def output_paths(self) -> list[str]:
        return [o.path for o in self.outputs if o.path is not None]

    @property
    def seed(self) -> int:
        return self.outputs[0].seed

    @property
    def seeds(self) -> list[int]:
        return [o.seed for o in self.outputs]

    @property
    def generation_time(self) -> float:
        """Seconds of computing, without waiting and saving."""
        return float(self["generation_time"])

    @property
    def frames(self) -> NDArray[numpy.uint8]:
        """Of the first output, see Output.frames."""
        return self.outputs[0].frames

    @property
    def images(self) -> list[Image]:
        """Pillow pictures of all frames of all outputs."""
        return [image for output in self.outputs for image in output.images]

    @property
    def recipe(self) -> dict[str, Any]:
        """Of the first output."""
        return self.outputs[0].recipe

    def __repr__(self) -> str:
        return f"Result({self.prompt!r}, {self.outputs!r})"
