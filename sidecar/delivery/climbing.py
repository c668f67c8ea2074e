"""One closing under way: what the ladder commands is carried out, and what comes of it goes back to the ladder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from attestation.channel import KillEnvoy, Swept
from attestation.channel import Sweep as SweepOrder
from sidecar.delivery import ladder
from sidecar.delivery.ending import Ending
from sidecar.delivery.ladder import Bounded, Closed, Closing, Kill, Quit, Sweep, Wait
from sidecar.delivery.told import Happening, Told
from sidecar.states import Now
from xds.acks import Publication, Settlement
from xds.server import Server


@dataclass(frozen=True, slots=True)
class Means:
    """What a closing is carried through with.

    clock: both clocks. order: hands a message to the measurer, at once. tell: called with each Happening.
    admin: Envoy's admin socket, where it is ours.
    """

    server: Server
    clock: Callable[[], Now]
    order: Callable[[SweepOrder | KillEnvoy], None]
    tell: Callable[[Told], None]
    admin: Path | None

    def taken(self, settlement: Settlement) -> bool:
        """Only a running Envoy's own acknowledgement counts: one that lost its stream still serves the old identity."""
        unreached = self.server.client is not None and self.server.streams == 0
        return settlement.in_force and not settlement.gone and not unreached


class Climbing:
    """From the first sweep, which its maker has ordered, to the end, with which `over` is called once; or to `stop`.

    Made inside a running loop, for the Envoy of that moment. steps: the rungs that are behind it, as in Told.
    """

    def __init__(
        self, reason: str, first_sweep: int, steps: dict[str, float], means: Means, over: Callable[[Told], None]
    ) -> None:
        self._steps = steps
        self._means = means
        self._over = over
        self._ending = Ending(means.server.client, means.admin, lambda: self._reached("ended", ladder.Ended()))
        self._closing = Closing(reason, first_sweep, quits=self._ending.can_be_asked)
        self._timers: list[asyncio.TimerHandle] = []
        self._due = 0.0

    def begin(self, publication: Publication, patience: float) -> None:
        """publication: of the poison, which Envoy has so many seconds to acknowledge."""
        self._due = asyncio.get_running_loop().time() + patience
        self._later(patience, ladder.Unacknowledged())
        publication.on_rejected(lambda answer: self._climb(ladder.Rejected(answer.reason)))
        publication.on_settled(self._settled)

    def patience(self, escalate_after: float) -> float:
        """Seconds that are left of these for the closing that takes the place of this one.

        An Envoy that owes an answer has no new time to give it for being closed once more.
        """
        if self._closing.acknowledged:
            return escalate_after
        return min(escalate_after, max(0.0, self._due - asyncio.get_running_loop().time()))

    def swept(self, done: Swept) -> None:
        """The measurer's answer to a sweep or a kill. One that an earlier closing ordered says nothing of this one."""
        if done.number >= self._closing.first_sweep:
            self._steps.setdefault("swept", done.at)
            self._climb(ladder.SweepDone(done.number, done.destroyed, done.left))

    def end_envoy(self, reason: str) -> None:
        """SIGKILL from here, in case nobody else can cut its open connections any more.

        Where we may not, for it runs as another user, they end by their duration cap.
        """
        if self._means.server.client is None:
            return
        refused = self._ending.kill()
        self._means.tell(Told(Happening.ESCALATED, f"{reason}; not by us: {refused}" if refused else reason))

    def stop(self) -> None:
        """Whatever still happens is no longer about this closing."""
        self._closing = replace(self._closing, finished=True)
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._ending.close()

    def _settled(self, settlement: Settlement) -> None:
        if self._means.taken(settlement):
            self._reached("acknowledged", ladder.Acknowledged())

    def _reached(self, rung: str, event: ladder.Event) -> None:
        if not self._closing.finished:
            self._mark(rung)
            self._climb(event)

    def _climb(self, event: ladder.Event) -> None:
        outcome = ladder.climb(self._closing, event)
        self._closing = outcome.closing
        for command in outcome.commands:
            self._carry_out(command)

    def _carry_out(self, command: ladder.Command) -> None:
        match command:
            case Sweep(number):
                self._means.order(SweepOrder(number))
            case Quit(reason):
                self._quit(reason)
            case Kill(number, reason):
                self._mark("killed")
                # Both try: the measurer may be stopped, and we may be no user who is allowed to.
                self._means.order(KillEnvoy(number))
                self.end_envoy(reason)
            case Wait(seconds, event):
                self._later(seconds, event)
            case Closed(destroyed, way):
                self._mark("verified")
                self._finish(Happening.CLOSED, way, destroyed)
            case Bounded(left):
                self._finish(Happening.BOUNDED, f"{left} connections end by their duration cap", 0)

    def _quit(self, reason: str) -> None:
        self._mark("quit")
        self._means.tell(Told(Happening.ESCALATED, f"{reason}; asked to quit"))
        refused = self._ending.ask()
        if refused:
            self._later(0.0, ladder.QuitFailed(f"{reason}; it cannot be asked to quit: {refused}"))

    def _finish(self, how: Happening, detail: str, destroyed: int) -> None:
        self.stop()
        self._over(Told(how, detail, destroyed, self._steps, self._closing.reason))

    def _mark(self, rung: str) -> None:
        self._steps[rung] = self._means.clock().boot

    def _later(self, seconds: float, event: ladder.Event) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, self._climb, event))
