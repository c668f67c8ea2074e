"""What a child's log lines say, kept in order and awaited by condition."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from proofbeat.ephemeral.clock import now
from telemetry.names import Event

Line = Mapping[str, Any]
Told = TypeVar("Told")


@dataclass(slots=True)
class Watch:
    """The story of one sidecar, line by line. phase: the one last told."""

    lines: list[Line] = field(default_factory=list)
    phase: str = ""
    _news: list[asyncio.Future[None]] = field(default_factory=list)

    def hear(self, line: Line) -> None:
        self.lines.append({**line, "heard": now()})
        if line.get("event") == Event.PHASE:
            self.phase = str(line["phase"])
        waiting, self._news = self._news, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def first(self, event: Event, since: float, matching: Callable[[Line], bool] = lambda _: True) -> Line | None:
        """The first such line that was heard at or after `since`."""
        return next((line for line in self.since(since) if line.get("event") == event and matching(line)), None)

    def since(self, moment: float) -> list[Line]:
        """The lines that were heard at or after `moment`."""
        return self.lines[bisect_left(self.lines, moment, key=lambda line: float(line["heard"])) :]

    async def until(
        self, event: Event, since: float, *, within: float, matching: Callable[[Line], bool] = lambda _: True
    ) -> Line | None:
        """Waits for such a line; None when it does not come within so many seconds."""
        try:
            async with asyncio.timeout(within):
                return await self.when(lambda: self.first(event, since, matching))
        except TimeoutError:
            return None

    async def when(self, told: Callable[[], Told | None]) -> Told:
        """Waits until what was heard tells it, however long that takes. told: asked anew whenever a line was heard."""
        while (found := told()) is None:
            news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._news.append(news)
            await news
        return found


def in_phase(phase: str) -> Callable[[Line], bool]:
    return lambda line: line.get("phase") == phase
