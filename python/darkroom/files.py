"""Names of new files, and the promise that a file appears whole or not at all."""
from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable

from .errors import DarkroomError, FileError, InvalidRequestError, NoSpaceError, NotFoundError

PICTURES = ("png", "jpeg", "jpg", "webp")
VIDEOS = ("mp4", "webm", "gif")
FORMATS = PICTURES + VIDEOS
SLUG_CHARACTERS = 40
MOST_TRIES = 100000


def extension_of(name: str) -> str:
    """The format that a name chooses; "" when it has no known extension."""
    extension = os.path.splitext(name)[1].lstrip(".").lower()
    return extension if extension in FORMATS else ""


def check_name(name: str) -> None:
    if not name or name in (".", "..") or "/" in name or any(ord(c) < 32 for c in name):
        raise InvalidRequestError(f"output_file_name is '{name}', accepted is a plain name")


def slug(prompt: str) -> str:
    """The prompt's letters and digits in ASCII, small, joined by '-', cut between words: as `darkroom generate` does it."""
    words = "".join(c.lower() if c.isascii() and c.isalnum() else " " for c in prompt).split()
    text = "-".join(words)[:SLUG_CHARACTERS]
    if len(text) == SLUG_CHARACTERS:
        text = text.rpartition("-")[0] or text
    return text or "output"


def of_os_error(error: OSError, path: str) -> DarkroomError:
    full, missing = error.errno in (errno.ENOSPC, errno.EDQUOT), error.errno == errno.ENOENT
    return (NoSpaceError if full else NotFoundError if missing else FileError)(f"{path}: {error.strerror or error}")


def make_folder(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise of_os_error(error, path) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise FileError(f"output_path is '{path}', which cannot be written")


def write_whole(path: str, data: bytes) -> None:
    temporary = f"{path}.{secrets.token_hex(4)}.new"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        _remove(temporary)
        raise of_os_error(error, path) from None


def save_new(stem: str, extension: str, write: Callable[[str], object]) -> str:
    """Lets `write` make a file and gives it the first free name of stem.ext, stem-2.ext, …"""
    folder, name = os.path.split(stem)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.new.{extension}")
    try:
        write(temporary)
        for i in range(1, MOST_TRIES):
            path = f"{stem}.{extension}" if i == 1 else f"{stem}-{i}.{extension}"
            try:
                os.link(temporary, path)
                return path
            except FileExistsError:
                continue
            except OSError as error:
                if os.path.exists(path) or error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                    raise of_os_error(error, path) from None
                os.rename(temporary, path)  # a file system without links
                return path
        raise FileError(f"{stem}.{extension}: no free name up to -{MOST_TRIES}")
    finally:
        _remove(temporary)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
