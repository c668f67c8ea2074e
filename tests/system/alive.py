"""A world that several tests share, in an event loop that never stands still between them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Alive(Generic[T]):
    """What `world` makes, in a thread of its own from now until `end`."""

    def __init__(self, world: AbstractAsyncContextManager[T]) -> None:
        self._ready: Future[tuple[T, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._hold(world)), name="world")
        self._thread.start()

    def told(self, story: Callable[[T], Coroutine[Any, Any, None]]) -> None:
        """The story, in the world's loop, to its end."""
        made, loop, _ = self._ready.result()
        asyncio.run_coroutine_threadsafe(story(made), loop).result()

    def end(self) -> None:
        _, loop, over = self._ready.result()
        loop.call_soon_threadsafe(over.set)
        self._thread.join()

    async def _hold(self, world: AbstractAsyncContextManager[T]) -> None:
        over = asyncio.Event()
        try:
            async with world as made:
                self._ready.set_result((made, asyncio.get_running_loop(), over))
                await over.wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise
