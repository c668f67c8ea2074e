"""Workloads under the measurer's eyes for a while: what is told and measured goes into what is learned."""

from __future__ import annotations

import asyncio
import platform
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from attestation.calls import Watching
from attestation.channel import Calls
from attestation.layers import Layer
from attestation.quantities import instant_text
from policies.author.learning.learned import Learned
from policies.author.learning.watched import STARTUP, Subject, Watched
from proofbeat.learning.libraries import Libraries
from proofbeat.learning.wishes import Until
from proofbeat.study import Study, boottime

EVERY_CALL = Calls(Watching.STRICT, allowed=())
"""With nothing allowed, the kernel's programs tell each call once, with whoever made it."""
LOOKS = 1.0
"""The most seconds between two looks into memory: what is mapped for a shorter time only facts tell."""
TURN = 5.0
"""Seconds after which every call is told again, so that it is known of each part of a workload's life."""


@dataclass(frozen=True, slots=True)
class Watch:
    """One workload. watched: hears of it from now on. libraries: where what its programs ask for is looked up."""

    study: Study
    watched: Watched
    libraries: Libraries | None = None

    def __post_init__(self) -> None:
        self.study.heard = self.watched.saw

    @property
    def now(self) -> float:
        """Seconds since it began."""
        return self.watched.at(boottime())

    @property
    def converged(self) -> bool:
        return self.watched.convergence.converged(self.now)

    async def measure(self) -> None:
        """All that is there."""
        self.watched.measured(await self.study.measure(), boottime())
        self._look_up()

    async def turn(self) -> None:
        """What was called until now, and whatever is called from now on is told again."""
        self.watched.measured(await self.study.measure(Layer.SYSCALLS, full=False), boottime())
        await self.study.measure(Layer.SYSCALLS)

    async def look(self) -> None:
        """What came by no event: what is mapped, and what was called. Files tell by themselves."""
        self.watched.measured(await self.study.measure(Layer.MEMORY, Layer.PROCESSES, full=False), boottime())
        self._look_up()
        await self.turn()

    async def ended(self, ending: Callable[[], Awaitable[None]]) -> None:
        """See how it ends. ending: ends it."""
        await self.turn()
        self.watched.ends(boottime())
        await ending()
        self.watched.measured(await self.study.measure(Layer.SYSCALLS, full=False), boottime())

    def _look_up(self) -> None:
        """A program that lives for milliseconds is gone before anybody looks at what it has mapped."""
        if self.libraries is None:
            return
        for program in self.watched.anew():
            for path, digest in self.libraries.of(program):
                self.watched.asks_for(program, path, digest, boottime())

    def learned(self) -> Learned:
        return self.watched.learned(boottime(), self.study.lost)


def begun(
    study: Study,
    of: str,
    include: tuple[str, ...],
    exempt: tuple[str, ...],
    libraries: Libraries | None = None,
    *,
    fresh: bool = False,
) -> Watch:
    """From now on, as a run of its own. of: whom, for people. libraries: as of Watch. fresh: nothing of it ran yet."""
    run = f"{instant_text(int(time.time()))}-{secrets.token_hex(3)}"
    subject = Subject(run, of, platform.machine(), include, exempt)
    return Watch(study, Watched(subject, boottime(), fresh=fresh), libraries)


async def learn(watches: Sequence[Watch], until: Until, told: Callable[[], None] = lambda: None) -> None:
    """Until the time is over, nothing new comes any more, or all of them have ended. told: called after each look.

    Files count as settled after a program's first seconds, or half the time where that is less. Raises Unavailable.
    """
    end = boottime() + until.seconds
    await _pause(watches, min(STARTUP, until.seconds / 2))
    for each in watches:
        await each.measure()
    while (left := end - boottime()) > 0 and not _over(watches):
        await _pause(watches, min(TURN, left))
        for each in watches:
            await each.look()
        told()
        if until.converged and all(each.converged for each in watches):
            return


def _over(watches: Sequence[Watch]) -> bool:
    return all(each.study.over.is_set() for each in watches)


async def _pause(watches: Sequence[Watch], seconds: float) -> None:
    """Or until all of them have ended."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for each in watches:
                await each.study.over.wait()
