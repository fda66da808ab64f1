"""The `darkroom` program: where it is, its scheduler as a child process, its encoder."""
from __future__ import annotations

import collections
import logging
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import DarkroomError, NotFoundError, UnsupportedError, of_exit_code

if TYPE_CHECKING:
    from .result import Output

log = logging.getLogger("darkroom")
TAIL_LINES = 20
STOP_S = 5.0
PREFIX = "darkroom: "


def find_program(given: str | os.PathLike[str] | None) -> str:
    """Looks at the argument, DARKROOM_PROGRAM, PATH, and the build folder of a source tree that this package lies in."""
    beside = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "build", "darkroom")
    looked = []
    for where, path in (("program", os.fspath(given) if given is not None else None),
                        ("DARKROOM_PROGRAM", os.environ.get("DARKROOM_PROGRAM")),
                        ("PATH", shutil.which("darkroom")), ("the source tree", beside)):
        if path and os.path.isfile(path) and os.access(path, os.X_OK):
            return os.path.abspath(path)
        looked.append(f"{where}: {path or 'nothing'}")
        if path and where in ("program", "DARKROOM_PROGRAM"):
            raise NotFoundError(f"{where} is '{path}', which is no program")
    raise NotFoundError(f"the program darkroom is not found ({'; '.join(looked)}); name it with program=… or DARKROOM_PROGRAM")


def _failure(code: int, stderr: str, what: str) -> DarkroomError:
    lines = [line[len(PREFIX):] for line in stderr.splitlines() if line.startswith(PREFIX)]
    told = [line for line in lines if not line.startswith("warning: ")] or lines
    if code < 0:
        return of_exit_code(8, f"{what} was ended by signal {-code}")
    return of_exit_code(code, told[-1] if told else f"{what} ended with exit code {code}")


class Program:
    """Runs sub-commands."""

    def __init__(self, path: str) -> None:
        self.path = path

    def encode(self, output: Output, target: str, quality: int | None) -> None:
        """Writes the file of an output. Frames and recipe are read from memory, not from the disk."""
        shared, recipe = output._shared, os.memfd_create("darkroom-recipe")
        own = -1
        try:
            os.write(recipe, output.recipe_text.encode())
            frames = shared.fd if shared is not None and shared.fd >= 0 else -1
            if frames < 0:
                frames = own = os.memfd_create("darkroom-frames")
                with open(own, "wb", closefd=False) as file:
                    file.write(output.buffer)
            self._encode(output, target, quality, frames, recipe)
        finally:
            os.close(recipe)
            if own >= 0:
                os.close(own)

    def _encode(self, output: Output, target: str, quality: int | None, frames: int, recipe: int) -> None:
        words = [self.path, "encode", f"--frames=/proc/self/fd/{frames}", f"--width={output.width}", f"--height={output.height}",
                 f"--num-frames={output.num_frames}", f"--fps={output.fps!r}", f"--output-file={target}"]
        if output.recipe_text:
            words.append(f"--recipe=/proc/self/fd/{recipe}")
        if quality is not None:
            words.append(f"--output-quality={quality}")
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              pass_fds=(frames, recipe))
        if done.returncode != 0:
            raise _failure(done.returncode, done.stderr, f"{self.path} encode")


def flags_of(options: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in options.items():
        text = str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, float) else str(value)
        words.append(f"--{name.replace('_', '-')}={text}")
    return words


class Scheduler:
    """`darkroom scheduler` with a private endpoint. It ends with the thread that starts it, however this process ends."""

    def __init__(self, program: Program, options: Mapping[str, Any]) -> None:
        self.program, self.options = program, options
        self.folder = tempfile.mkdtemp(prefix="darkroom-")  # mode 0700
        self.endpoint = f"ipc://{self.folder}/scheduler"
        self.process: subprocess.Popen[str] | None = None
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._reader: threading.Thread | None = None
        if len(self.endpoint) > 100:
            self.remove()
            raise UnsupportedError(f"{self.endpoint} is too long for a socket; choose a shorter TMPDIR")

    def start(self) -> None:
        words = [self.program.path, "scheduler", f"--endpoint={self.endpoint}", f"--parent-pid={os.getpid()}",
                 *flags_of(self.options)]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        text=True, errors="replace", start_new_session=True)
        self._reader = threading.Thread(target=self._read, args=(self.process,), name="darkroom-stderr", daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                line = line.rstrip("\n")
                self._tail.append(line)
                text = line.removeprefix(PREFIX)
                log.log(logging.WARNING if text.startswith(("warning: ", "error: ")) else logging.INFO, "%s", text)

    def failure(self) -> DarkroomError | None:
        """Why it ended; None: it runs."""
        code = self.process.poll() if self.process is not None else None
        if code is None:
            return None
        if self._reader is not None:
            self._reader.join(STOP_S)
        return _failure(code, "\n".join(self._tail), "the scheduler")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
