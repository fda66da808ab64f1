"""Darkroom: images and videos by diffusion models. docs/python-sdk.md tells how to use it."""
from .aio import AsyncDiffGenerator
from .backend import Plan
from .errors import (
    AccessDeniedError, BusyError, CancelledError, DarkroomError, DarkroomWarning, DeviceError, FileError, FormatError,
    InternalError, InvalidRequestError, MismatchError, NetworkError, NoSpaceError, NotFoundError, OutOfMemoryError, OutOfTimeError,
    UnknownArgumentError, UnsupportedError)
from .events import DoneEvent, Event, PreviewEvent, ProgressEvent
from .generator import DiffGenerator
from .result import Output, Result

__version__ = "0.1.0"

__all__ = [
    "AccessDeniedError", "AsyncDiffGenerator", "BusyError", "CancelledError", "DarkroomError", "DarkroomWarning", "DeviceError",
    "DiffGenerator", "DoneEvent", "Event", "FileError", "FormatError", "InternalError", "InvalidRequestError", "MismatchError",
    "NetworkError", "NoSpaceError", "NotFoundError", "Output", "OutOfMemoryError", "OutOfTimeError", "Plan", "PreviewEvent",
    "ProgressEvent", "Result", "UnknownArgumentError", "UnsupportedError"]
