"""Failures: one exception for every status of include/darkroom/error.h."""
from __future__ import annotations

from typing import Any, Mapping


class DarkroomError(Exception):
    """What every failure of this package is.

    `status` is the number in messages, `exit_code` the program's, `http_status` the server's.
    """

    status: int = 0
    exit_code: int = 1
    http_status: int = 500
    text: str = "failed"

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else self.text


class InvalidRequestError(DarkroomError, ValueError):
    """An argument that is not accepted; the message says what is."""

    status, exit_code, http_status, text = 1, 2, 400, "invalid argument"


class UnknownArgumentError(InvalidRequestError, TypeError):
    """An argument of a name that is not known."""


class NotFoundError(DarkroomError, LookupError):
    """A model, a file or a job that is not there."""

    status, exit_code, http_status, text = 2, 3, 404, "not found"


class FormatError(DarkroomError):
    """A damaged file or message."""

    status, exit_code, http_status, text = 3, 4, 422, "malformed file"


class UnsupportedError(DarkroomError):
    """Something that this version, model or device does not do."""

    status, exit_code, http_status, text = 4, 5, 501, "not supported"


class FileError(DarkroomError):
    """A file that cannot be read or written."""

    status, exit_code, http_status, text = 5, 6, 500, "input or output failed"


class OutOfMemoryError(DarkroomError, MemoryError):
    """The request needs more memory than there is."""

    status, exit_code, http_status, text = 6, 7, 503, "out of memory"


class DeviceError(DarkroomError):
    """The device, or the worker that drives it, failed."""

    status, exit_code, http_status, text = 7, 8, 500, "device failure"


class NetworkError(DarkroomError, ConnectionError):
    """The server, the scheduler or the hub cannot be reached."""

    status, exit_code, http_status, text = 8, 9, 502, "network failure"


class AccessDeniedError(DarkroomError):
    """A key that is missing or wrong."""

    status, exit_code, http_status, text = 9, 10, 401, "access denied"


class BusyError(DarkroomError):
    """Too much to do at the moment; `retry_after` tells for how many seconds, when it is known."""

    status, exit_code, http_status, text = 10, 11, 429, "too many requests"

    def __init__(self, *args: object, retry_after: float | None = None) -> None:
        super().__init__(*args)
        self.retry_after = retry_after


class MismatchError(DarkroomError):
    """Results differ from what they should be."""

    status, exit_code, http_status, text = 11, 12, 409, "results differ"


class InternalError(DarkroomError):
    """A fault of Darkroom's."""

    status, exit_code, http_status, text = 12, 13, 500, "internal error"


class NoSpaceError(DarkroomError):
    """The disk is full."""

    status, exit_code, http_status, text = 13, 14, 507, "no space left"


class OutOfTimeError(DarkroomError, TimeoutError):
    """timeout_s passed."""

    status, exit_code, http_status, text = 14, 15, 504, "out of time"


class CancelledError(DarkroomError):
    """Somebody cancelled it, or the generator was closed."""

    status, exit_code, http_status, text = 15, 130, 499, "cancelled"


ALL: tuple[type[DarkroomError], ...] = (
    InvalidRequestError, NotFoundError, FormatError, UnsupportedError, FileError, OutOfMemoryError, DeviceError, NetworkError,
    AccessDeniedError, BusyError, MismatchError, InternalError, NoSpaceError, OutOfTimeError, CancelledError)


class DarkroomWarning(UserWarning):
    """An argument that is accepted but changes nothing here."""


def of_status(status: object, message: str) -> DarkroomError:
    """By the number in a message."""
    for kind in ALL:
        if kind.status == status:
            return kind(message)
    return InternalError(message)


def of_exit_code(code: int, message: str) -> DarkroomError:
    """By the exit code of the program."""
    for kind in ALL:
        if kind.exit_code == code:
            return kind(message)
    return InternalError(message)


def of_code(code: object, message: str) -> DarkroomError | None:
    """By the text of a failed job, "out_of_memory"."""
    for kind in ALL:
        if isinstance(code, str) and kind.text.replace(" ", "_") == code.replace(" ", "_"):
            return kind(message)
    return None


def of_http(status: int, error: Mapping[str, Any], retry_after: str | None) -> DarkroomError:
    """By an HTTP reply: its status and its error object."""
    message = str(error.get("message") or f"the server answered {status}")
    found = of_code(error.get("code"), message)
    if found is None:
        other: dict[int, type[DarkroomError]] = {
            403: AccessDeniedError, 405: UnsupportedError, 408: OutOfTimeError, 413: InvalidRequestError,
            415: InvalidRequestError, 500: InternalError, 503: BusyError}
        for kind in ALL:
            other.setdefault(kind.http_status, kind)
        found = other.get(status, InvalidRequestError if 400 <= status < 500 else InternalError)(message)
    if isinstance(found, BusyError) and retry_after is not None:
        try:
            found.retry_after = float(retry_after)
        except ValueError:
            pass
    return found
