"""When a round runs: every interval by APScheduler, and at once when somebody wants one."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from apscheduler.events import EVENT_JOB_ERROR
from apscheduler.schedulers.asyncio import AsyncIOScheduler


class Rounds:
    """Wishes for rounds, merged: many at once are one round, a full one if any wish was for a full one.

    The schedule only asks for rounds. It goes by the wall clock and sleeps through a suspend, so lease ends and
    closings never hang on it.
    """

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(job_defaults={"misfire_grace_time": None, "coalesce": True})
        self._wanted = asyncio.Event()
        self._full = False
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._scheduler.add_listener(self._failed, EVENT_JOB_ERROR)
        self._scheduler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scheduler.shutdown(wait=False)

    def every(self, interval: float) -> None:
        """One round each so many seconds from now on, instead of an earlier rhythm."""
        self._scheduler.add_job(self._due, "interval", seconds=interval, id="round", replace_existing=True)

    def want(self, *, full: bool = False) -> None:
        """A round now, or right after the one under way."""
        self._full = self._full or full
        self._wanted.set()

    async def next(self) -> bool:
        """Waits until a round is wanted; True for a full one. Raises what broke the schedule."""
        await self._wanted.wait()
        if self._failure is not None:
            raise self._failure
        self._wanted.clear()
        full, self._full = self._full, False
        return full

    async def _due(self) -> None:
        self.want()

    def _failed(self, event: Any) -> None:
        self._failure = event.exception
        self._wanted.set()
