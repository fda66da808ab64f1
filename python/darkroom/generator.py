"""DiffGenerator: pictures and videos from prompts."""
from __future__ import annotations

import functools
import queue
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from . import options, order
from .backend import Backend, Finished, Item, Plan
from .errors import DarkroomError, InvalidRequestError
from .events import DoneEvent, Event, OnPreview, OnProgress, PreviewEvent, ProgressEvent
from .order import Order
from .result import Result

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


def open_local(model_path: options.Path | None, program: options.Path | None, ready_timeout_s: float | None,
               given: Mapping[str, Any]) -> Backend:
    """Starts a scheduler of our own and waits until its first worker is ready."""
    from .local import Local
    from .program import Program, Scheduler, find_program

    settings = options.clean(given, options.PretrainedOptions, "from_pretrained")
    _check_layout(settings)
    if model_path is not None:
        settings["model_path"] = str(model_path)
    found = Program(find_program(program))
    scheduler = Scheduler(found, settings)
    return Local(scheduler.endpoint, found, scheduler, ready_timeout_s)


def _check_layout(settings: Mapping[str, Any]) -> None:
    sp, ulysses, ring = (settings.get(name) for name in ("sp_degree", "ulysses_degree", "ring_degree"))
    if sp is not None and (ulysses is not None or ring is not None) and (ulysses or 1) * (ring or 1) != sp:
        raise InvalidRequestError(f"sp_degree is {sp}, ulysses_degree {ulysses or 1} and ring_degree {ring or 1}: accepted is "
                                  "sp_degree = ulysses_degree x ring_degree")


def open_remote(url: str, api_key: str | None, program: options.Path | None, timeout_s: float) -> Backend:
    """Attaches to what runs already: a server at http:// or https://, a scheduler at ipc://."""
    if url.startswith(("http://", "https://")):
        from .remote import Remote

        return Remote(url, api_key, timeout_s)
    if url.startswith("ipc:///"):
        from .local import Local
        from .program import Program, find_program

        if api_key is not None:
            raise InvalidRequestError("api_key means nothing to a scheduler: accepted is None")
        return Local(url, Program(find_program(program)), None, timeout_s)
    raise InvalidRequestError(f"'{url}' is no address; accepted are http://host:port, https://host:port and ipc:///folder/name")


class DiffGenerator:
    """Makes pictures and videos. Safe to use from several threads.

    `from_pretrained` starts the program, `connect` attaches to a running server. Close it (`with`, or `close`): a generator that
    is forgotten is closed when it is collected or when Python ends.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._closer = weakref.finalize(self, backend.close)

    @classmethod
    @options.shows(options.PretrainedOptions)
    def from_pretrained(cls, model_path: options.Path | None = None, *, program: options.Path | None = None,
                        ready_timeout_s: float | None = None, **settings: Unpack[options.PretrainedOptions]) -> Self:
        """Opens a model: a folder in diffusers layout or a hub name; None: the small built-in one.

        program: the darkroom program, else DARKROOM_PROGRAM or the one in PATH. ready_timeout_s: how long loading (and
        downloading) may take. The other arguments: docs/parameters.md, "Model and machine" and "Scheduler and workers".
        """
        return cls(open_local(model_path, program, ready_timeout_s, settings))

    @classmethod
    def connect(cls, url: str, api_key: str | None = None, *, program: options.Path | None = None,
                timeout_s: float = 30.0) -> Self:
        """Attaches to `darkroom serve` at http(s)://host:port, or to a scheduler at ipc:///folder/name of this user.

        timeout_s: how long to wait until it is ready, and for an answer. program: only for ipc, to save files.
        """
        return cls(open_remote(url, api_key, program, timeout_s))

    @overload
    def generate(self, prompt: str, *, on_progress: OnProgress | None = None, on_preview: OnPreview | None = None,
                 **given: Unpack[options.GenerateOptions]) -> Result: ...

    @overload
    def generate(self, prompt: list[str] | tuple[str, ...], *, on_progress: OnProgress | None = None,
                 on_preview: OnPreview | None = None, **given: Unpack[options.GenerateOptions]) -> list[Result]: ...

    @options.shows(options.GenerateOptions)
    def generate(self, prompt: str | Sequence[str], *, on_progress: OnProgress | None = None, on_preview: OnPreview | None = None,
                 **given: Unpack[options.GenerateOptions]) -> Result | list[Result]:
        """Makes the outputs of a prompt, or of each of several prompts, and waits for them.

        on_progress and on_preview are called in this thread. An exception in them, and Ctrl-C, cancel the generation.
        """
        orders = orders_of(prompt, given)
        results: dict[int, Result] = {}
        for event in self._events(orders):
            if isinstance(event, ProgressEvent):
                if on_progress is not None:
                    on_progress(event)
            elif isinstance(event, PreviewEvent):
                if on_preview is not None:
                    on_preview(event)
            else:
                results[event.prompt_index] = event.result
        made = [results[i] for i in range(len(orders))]
        return made[0] if isinstance(prompt, str) else made

    @options.shows(options.GenerateOptions)
    def stream(self, prompt: str, **given: Unpack[options.GenerateOptions]) -> Iterator[Event]:
        """The same, event by event; the last one is a DoneEvent. A failure is raised. Leaving the loop early cancels."""
        return self._events([order.make(prompt, given)])

    @options.shows(options.GenerateOptions)
    def plan(self, prompt: str = "", **given: Unpack[options.GenerateOptions]) -> Plan:
        """What a request will take, without computing it."""
        return self._backend.plan(order.make(prompt, given))

    def info(self) -> dict[str, Any]:
        """What is at work: "model", "device", "defaults", …"""
        return self._backend.info()

    def close(self) -> None:
        """Ends what runs, and the program if it was started here. May be called twice."""
        self._closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _events(self, orders: list[Order]) -> Iterator[Event]:
        check_open(self._closer.alive)
        inbox: queue.SimpleQueue[tuple[int, Item]] = queue.SimpleQueue()
        cancels: dict[int, Callable[[], None]] = {}

        def put(at: int, item: Item) -> None:
            inbox.put((at, item))

        try:
            for one in orders:
                cancels[one.prompt_index] = self._backend.begin(one, functools.partial(put, one.prompt_index))
            while cancels:
                at, item = inbox.get()
                if isinstance(item, DarkroomError):
                    del cancels[at]
                    raise item
                if isinstance(item, Finished):
                    del cancels[at]
                    yield done_event(orders[at], item)
                else:
                    yield item
        finally:
            for cancel in cancels.values():
                cancel()


def orders_of(prompt: str | Sequence[str], given: Mapping[str, Any]) -> list[Order]:
    if isinstance(prompt, str):
        return [order.make(prompt, given)]
    if not isinstance(prompt, Sequence) or len(prompt) == 0:
        raise InvalidRequestError("prompt: accepted is a text or a list of texts that is not empty")
    return [order.make(one, given, (i, len(prompt))) for i, one in enumerate(prompt)]


def check_open(is_open: bool) -> None:
    if not is_open:
        raise InvalidRequestError("the generator is closed")


def done_event(one: Order, item: Finished) -> DoneEvent:
    return DoneEvent(one.finish(item.outputs, item.seconds, item.job_id), one.prompt_index)
