"""What changes in this process, awaited: nobody looks again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class News:
    """Whoever changes something says so; whoever waits for it looks then, and only then."""

    def __init__(self) -> None:
        self._came = asyncio.Event()

    def tell(self) -> None:
        """Something has changed."""
        self._came.set()

    async def until(self, holds: Callable[[], bool], within: float) -> None:
        """Raises TimeoutError where it does not hold in so many seconds."""
        async with asyncio.timeout(within):
            while not holds():
                self._came.clear()
                await self._came.wait()
