"""What the sidecar's run waits for: the workload pinned, then the first reason to end. What comes later is no news."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from attestation.channel import Pinned
from attestation.errors import ProofbeatError, Unavailable, WorkloadGone


class Ends:
    """Made inside a running loop. pid: the workload's. state: the sidecar's folder."""

    def __init__(self, pid: int, state: Path) -> None:
        self._pid, self._state = pid, state
        self._pinned: asyncio.Future[Pinned] = asyncio.get_running_loop().create_future()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def until_pinned(self) -> Pinned:
        """Raises what ended it before."""
        return await self._pinned

    async def until_over(self) -> None:
        """Raises what ends it."""
        await self._over

    def pin(self, pinned: Pinned) -> None:
        self._pinned.set_result(pinned)

    @property
    def is_pinned(self) -> bool:
        return self._pinned.done()

    @property
    def pinned(self) -> Pinned:
        """Once it is."""
        return self._pinned.result()

    def end(self, error: ProofbeatError) -> None:
        """Everything ends with this error, once."""
        if not self._pinned.done():
            self._pinned.set_exception(error)
        elif not self._over.done():
            self._over.set_exception(error)

    def workload_ended(self) -> None:
        self.end(WorkloadGone("the workload ended", where=f"pid {self._pid}"))

    def overrun(self) -> None:
        self.end(Unavailable("more facts than can be kept before enrolment", where="measurer"))

    def latch_failed(self, reason: str) -> None:
        """The closing is on its way; without a latch this process must not go on to open anything again."""
        self.end(Unavailable(reason, where=str(self._state), mend="Make room, or mend the file system."))

    def broke(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback that fails half-way may have been a closing: nothing goes on after it, and the guardian closes."""
        loop.default_exception_handler(context)
        if "handle" in context:
            error = context.get("exception")
            self.end(Unavailable(f"a callback failed: {error}", where="sidecar", mend="Start the sidecar again."))
