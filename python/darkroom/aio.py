"""AsyncDiffGenerator: the same for asyncio."""
from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

from . import options, order
from .backend import Backend, Finished, Item, Plan
from .errors import DarkroomError
from .events import Event, OnPreview, OnProgress, PreviewEvent, ProgressEvent
from .generator import check_open, done_event, open_local, open_remote, orders_of
from .order import Order
from .result import Result

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class AsyncDiffGenerator:
    """DiffGenerator's twin: the same arguments and results. Generations of several tasks run side by side; cancelling the task
    that waits cancels the generation."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._closer = weakref.finalize(self, backend.close)

    @classmethod
    @options.shows(options.PretrainedOptions)
    async def from_pretrained(cls, model_path: options.Path | None = None, *, program: options.Path | None = None,
                              ready_timeout_s: float | None = None, **settings: Unpack[options.PretrainedOptions]) -> Self:
        """See DiffGenerator.from_pretrained."""
        return cls(await asyncio.to_thread(open_local, model_path, program, ready_timeout_s, settings))

    @classmethod
    async def connect(cls, url: str, api_key: str | None = None, *, program: options.Path | None = None,
                      timeout_s: float = 30.0) -> Self:
        """See DiffGenerator.connect."""
        return cls(await asyncio.to_thread(open_remote, url, api_key, program, timeout_s))

    @overload
    async def generate(self, prompt: str, *, on_progress: OnProgress | None = None, on_preview: OnPreview | None = None,
                       **given: Unpack[options.GenerateOptions]) -> Result: ...

    @overload
    async def generate(self, prompt: list[str] | tuple[str, ...], *, on_progress: OnProgress | None = None,
                       on_preview: OnPreview | None = None, **given: Unpack[options.GenerateOptions]) -> list[Result]: ...

    @options.shows(options.GenerateOptions)
    async def generate(self, prompt: str | Sequence[str], *, on_progress: OnProgress | None = None,
                       on_preview: OnPreview | None = None, **given: Unpack[options.GenerateOptions]) -> Result | list[Result]:
        """See DiffGenerator.generate; the callbacks are called in the event loop's thread."""
        orders = orders_of(prompt, given)
        results: dict[int, Result] = {}
        events = self._events(orders)
        try:
            async for event in events:
                if isinstance(event, ProgressEvent):
                    if on_progress is not None:
                        on_progress(event)
                elif isinstance(event, PreviewEvent):
                    if on_preview is not None:
                        on_preview(event)
                else:
                    results[event.prompt_index] = event.result
        finally:
            await events.aclose()
        made = [results[i] for i in range(len(orders))]
        return made[0] if isinstance(prompt, str) else made

    @options.shows(options.GenerateOptions)
    def stream(self, prompt: str, **given: Unpack[options.GenerateOptions]) -> AsyncIterator[Event]:
        """See DiffGenerator.stream. To leave the loop early, close the iterator (contextlib.aclosing) or cancel the task."""
        return self._events([order.make(prompt, given)])

    @options.shows(options.GenerateOptions)
    async def plan(self, prompt: str = "", **given: Unpack[options.GenerateOptions]) -> Plan:
        """See DiffGenerator.plan."""
        return await asyncio.to_thread(self._backend.plan, order.make(prompt, given))

    def info(self) -> dict[str, Any]:
        """See DiffGenerator.info."""
        return self._backend.info()

    async def close(self) -> None:
        """See DiffGenerator.close."""
        await asyncio.to_thread(self._closer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _events(self, orders: list[Order]) -> AsyncGenerator[Event, None]:
        check_open(self._closer.alive)
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[tuple[int, Item]] = asyncio.Queue()
        cancels: dict[int, Callable[[], None]] = {}

        def put(at: int, item: Item) -> None:
            try:
                loop.call_soon_threadsafe(inbox.put_nowait, (at, item))
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        try:
            for one in orders:
                cancels[one.prompt_index] = await _begin(self._backend, one, functools.partial(put, one.prompt_index))
            while cancels:
                at, item = await inbox.get()
                if isinstance(item, DarkroomError):
                    del cancels[at]
                    raise item
                if isinstance(item, Finished):
                    del cancels[at]
                    yield await asyncio.to_thread(done_event, orders[at], item)
                else:
                    yield item
        finally:
            for cancel in cancels.values():
                cancel()


async def _begin(backend: Backend, one: Order, emit: Callable[[Item], None]) -> Callable[[], None]:
    """backend.begin in a thread; when this task is cancelled meanwhile, what was begun is cancelled too."""
    begun = asyncio.get_running_loop().run_in_executor(None, backend.begin, one, emit)
    try:
        return await asyncio.shield(begun)
    except asyncio.CancelledError:
        begun.add_done_callback(lambda future: None if future.cancelled() or future.exception() else future.result()())
        raise
