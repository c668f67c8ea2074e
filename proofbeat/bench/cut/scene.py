"""The mesh with services whose callers hold connections, the client that holds them, and who told what of their end."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import sys
from dataclasses import replace
from typing import Any

from attestation.errors import Unavailable
from proofbeat.bench.cut import service
from proofbeat.bench.cut.holder import DROP, Order
from proofbeat.demo.layout import Layout
from proofbeat.demo.scene import Scene, Standing
from proofbeat.ephemeral.children import Child

OPENED_WITHIN = 60.0
ATTEMPTS = 3
Line = dict[str, Any]


class HeldScene(Scene):
    """As a benchmark's other scenes, with another service. ends: by side, what its service tells of ends."""

    def __init__(self, layout: Layout, tasks: asyncio.TaskGroup) -> None:
        super().__init__(layout, tasks)
        self.ends: dict[str, asyncio.Queue[Line]] = {side.name: asyncio.Queue() for side in layout.sides}
        self._telling: dict[str, asyncio.Task[None]] = {}

    async def start_workload(self, standing: Standing) -> None:
        shutil.copy(service.__file__, standing.side.app / "service.py")
        await super().start_workload(standing)
        name, child = standing.side.name, standing.workload
        if child is not None:
            self._telling[name] = self._tasks.create_task(_collect(child, self.ends[name]), name=f"ends at {name}")

    async def start_holder(self) -> Holding:
        """The client, which is none of the measured workloads."""
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-P", "-m", "proofbeat.bench.cut.holder"]
        child = await self._children.start("holder", command, stdin=pipe, stdout=pipe)
        told: asyncio.Queue[Line] = asyncio.Queue()
        self._tasks.create_task(_collect(child, told), name="holder")
        return Holding(child, told)


class Holding:
    """Orders for the client. told: what it says of their ends."""

    def __init__(self, child: Child, told: asyncio.Queue[Line]) -> None:
        self._child = child
        self.told = told

    async def hold(self, order: Order) -> None:
        """Returns when all are open; a busy machine's proxies get more than one try. Raises Unavailable."""
        line: Line | None = None
        for attempt in range(ATTEMPTS):
            self._write(replace(order, attempt=attempt).dump())
            line = await heard(self.told, OPENED_WITHIN)
            if line == {"held": order.count}:
                return
        raise Unavailable(f"{order.count} connections ({order.kind}) could not be opened: {line}", where="bench cut")

    async def drop(self) -> int:
        """Closes what is still open, and says how many those were."""
        self._write(DROP)
        line = await heard(self.told, OPENED_WITHIN)
        return int(line["left"]) if line else 0

    def _write(self, line: bytes) -> None:
        stdin = self._child.process.stdin
        if stdin is None or not self._child.running:
            raise Unavailable("the holder of connections has ended", where="bench cut, holder.log")
        stdin.write(line)


async def heard(told: asyncio.Queue[Line], within: float) -> Line | None:
    """The next line, or None where none comes within so many seconds."""
    try:
        async with asyncio.timeout(within):
            return await told.get()
    except TimeoutError:
        return None


def forget(told: asyncio.Queue[Line]) -> None:
    """What was said and is of no interest any more."""
    while not told.empty():
        told.get_nowait()


def allow_descriptors() -> None:
    """As many as this user may have, for us and for all that are started: two sockets a connection and proxy."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _collect(child: Child, told: asyncio.Queue[Line]) -> None:
    stdout = child.process.stdout
    while stdout is not None and (line := await stdout.readline()):
        told.put_nowait(json.loads(line))
