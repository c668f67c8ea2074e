"""What a child's log lines say, kept in order and awaited by condition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proofbeat.demo.load import now
from telemetry.names import Event

Line = Mapping[str, Any]


@dataclass(slots=True)
class Watch:
    """The story of one sidecar, line by line."""

    lines: list[Line] = field(default_factory=list)
    _news: list[asyncio.Future[None]] = field(default_factory=list)

    def hear(self, line: Line) -> None:
        self.lines.append({**line, "heard": now()})
        waiting, self._news = self._news, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def first(self, event: Event, since: float, matching: Callable[[Line], bool] = lambda _: True) -> Line | None:
        """The first such line that was heard at or after `since`."""
        for line in self.lines:
            if line["heard"] >= since and line.get("event") == event and matching(line):
                return line
        return None

    async def until(
        self, event: Event, since: float, *, within: float, matching: Callable[[Line], bool] = lambda _: True
    ) -> Line | None:
        """Waits for such a line; None when it does not come within so many seconds."""
        try:
            async with asyncio.timeout(within):
                while (found := self.first(event, since, matching)) is None:
                    news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._news.append(news)
                    await news
        except TimeoutError:
            return None
        return found

    @property
    def phase(self) -> str:
        """The phase last told."""
        return next((str(line["phase"]) for line in reversed(self.lines) if line.get("event") == Event.PHASE), "")


def in_phase(phase: str) -> Callable[[Line], bool]:
    return lambda line: line.get("phase") == phase
