"""A running mesh for a benchmark: the demo's scene, opened, with terms and traffic of the benchmark's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from attestation.errors import Unavailable
from proofbeat.demo.layout import Layout, Terms
from proofbeat.demo.scene import Scene
from proofbeat.ephemeral import folder
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import in_phase
from sidecar.states import Phase
from telemetry.names import Event

OPEN_SECONDS = 30.0
SomeScene = TypeVar("SomeScene", bound=Scene)


@asynccontextmanager
async def scene(terms: Terms) -> AsyncIterator[Scene]:
    """Services, references, policy and authority; no sidecar yet. Leaves nothing behind."""
    async with staged(terms, Scene) as made:
        yield made


@asynccontextmanager
async def staged(terms: Terms, make: Callable[[Layout, asyncio.TaskGroup], SomeScene]) -> AsyncIterator[SomeScene]:
    """The same with a scene of the benchmark's own."""
    with folder.passing("bench") as here:
        async with asyncio.TaskGroup() as tasks:
            made = make(Layout.make(here, terms), tasks)
            try:
                await made.set_up()
                yield made
            finally:
                await made.end()


async def open_both(made: Scene) -> None:
    """Both sides attested and served. Raises Unavailable."""
    began = now()
    for standing in made.standings:
        await made.start_envoy(standing)
        await made.start_sidecar(standing, enrol=True)
    for standing in made.standings:
        fresh = in_phase(Phase.FRESH)
        if await standing.watch.until(Event.PHASE, began, within=OPEN_SECONDS, matching=fresh) is None:
            raise Unavailable(f"{standing.side.name} did not become fresh", where="bench")
