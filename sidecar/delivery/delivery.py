"""Serving a lease and closing, both synchronous: when they return, Envoy has the bytes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from attestation.channel import KillEnvoy, Message, Swept
from attestation.channel import Sweep as SweepOrder
from sidecar.delivery import ladder
from sidecar.delivery.ladder import Bounded, Closed, Closing, Kill, Sweep, Wait
from sidecar.delivery.poison import Poison
from sidecar.delivery.resources import Catalogue, Identity
from xds.acks import Publication, Settlement
from xds.acks import Verdict as Answer
from xds.server import Server
from xds.snapshot import Snapshot


class Happening(StrEnum):
    """What delivery tells its owner, each with a detail for the log."""

    CLOSED = "closed"
    BOUNDED = "closed-bounded"
    OPENED = "opened"
    ESCALATED = "escalated"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Told:
    """steps: where a closing's time went, in CLOCK_BOOTTIME seconds by name. reason: what a closing was for."""

    happening: Happening
    detail: str
    destroyed: int = 0
    steps: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


class Delivery:
    """One Envoy's identity.

    clock: CLOCK_BOOTTIME seconds. order: hands a message to the measurer, at once. tell: called with each
    Happening. escalate_after: seconds a closing may take before Envoy is killed.
    """

    def __init__(
        self,
        server: Server,
        catalogue: Catalogue,
        poison: Poison,
        *,
        clock: Callable[[], float],
        order: Callable[[Message], None],
        tell: Callable[[Told], None],
        escalate_after: float,
        silent: bool,
    ) -> None:
        self._server = server
        self._catalogue = catalogue
        self._poison = poison
        self._clock = clock
        self._order = order
        self._tell = tell
        self._escalate_after = escalate_after
        self._silent = silent
        self._open = False
        self._sweeps = 0
        self._closing: Closing | None = None
        self._steps: dict[str, float] = {}
        self._timers: list[asyncio.TimerHandle] = []

    def start(self) -> None:
        """Poison before the first lease, unless Envoy is to stay initialising until then."""
        if not self._silent:
            self._server.publish(self._catalogue.closed(self._poison, "no-lease-yet"))

    def retime(self, catalogue: Catalogue, escalate_after: float) -> None:
        """Other times from the next publication on."""
        self._catalogue = catalogue
        self._escalate_after = escalate_after

    def serve(self, identity: Identity) -> None:
        """Brings Envoy to this identity. Coming from closed, requests pass only once the identity is acknowledged."""
        self._abandon_closing()
        opened = self._catalogue.opened(identity)
        if self._open:
            self._published(opened)
            return
        self._open = True
        publication = self._published(self._catalogue.opening(identity, "opening"))
        publication.on_settled(lambda settlement: self._let_pass(settlement, opened, publication))

    def withhold(self, reason: str) -> None:
        """Nothing of an identity for whoever asks now; `serve` gives it again. Not where a closing is under way."""
        if self._open:
            self._open = False
            self._server.publish(self._catalogue.closed(self._poison, reason))

    def close(self, reason: str) -> None:
        """Poison and denial into every stream, then the order to cut what is open; the rest climbs the ladder."""
        began = self._clock()
        publication = self._server.publish(self._catalogue.closed(self._poison, reason))
        self._sweeps += 1
        self._order(SweepOrder(self._sweeps, verify=False))
        # Nothing above this line waits; everything below is bookkeeping.
        self._abandon_closing()
        self._steps = {"began": began, "written": self._clock()}
        self._open = False
        self._closing = Closing(reason, first_sweep=self._sweeps)
        self._later(self._escalate_after, ladder.Late())
        publication.on_rejected(lambda answer: self._climb(ladder.Rejected(answer.reason)))
        publication.on_settled(lambda settlement: self._settled(settlement))

    @property
    def _reason(self) -> str:
        return self._closing.reason if self._closing is not None else ""

    @property
    def closing(self) -> bool:
        """Is a closing under way, not yet verified?"""
        return self._closing is not None

    def heartbeat(self) -> None:
        """Renews what Envoy would drop by itself. Only for a caller who is healthy."""
        self._server.heartbeat()

    def swept(self, done: Swept) -> None:
        """The measurer's answer to a sweep or a kill."""
        self._steps.setdefault("swept", done.at)
        self._climb(ladder.SweepDone(done.number, done.destroyed, done.left))

    def end_envoy(self, reason: str) -> None:
        """SIGKILL from here, in case nobody else can cut its open connections any more.

        Where we may not, for it runs as another user, they end by their duration cap.
        """
        envoy = self._server.client
        if envoy is None:
            return
        try:
            signal.pidfd_send_signal(envoy.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return
        except PermissionError as error:
            reason = f"{reason}; not by us: {error.strerror}"
        self._tell(Told(Happening.ESCALATED, reason))

    def stop(self) -> None:
        self._abandon_closing()

    def _published(self, snapshot: Snapshot) -> Publication:
        publication = self._server.publish(snapshot)
        publication.on_rejected(self._rejected)
        return publication

    def _rejected(self, answer: Answer) -> None:
        self._tell(Told(Happening.REJECTED, f"Envoy rejected {', '.join(answer.resources)}: {answer.reason}"))

    def _let_pass(self, settlement: Settlement, opened: Snapshot, opening: Publication) -> None:
        overtaken = self._closing is not None or not self._open
        if overtaken or not settlement.in_force:
            return
        self._published(opened).on_settled(lambda _: self._tell(Told(Happening.OPENED, f"after {opening.sequence}")))

    def _settled(self, settlement: Settlement) -> None:
        """Only a running Envoy's own acknowledgement counts: one that lost its stream still serves the old identity."""
        unreached = self._server.client is not None and self._server.streams == 0
        if settlement.in_force and not settlement.gone and not unreached:
            self._steps["acknowledged"] = self._clock()
            self._climb(ladder.Acknowledged())

    def _climb(self, event: ladder.Event) -> None:
        if self._closing is None:
            return
        outcome = ladder.climb(self._closing, event)
        self._closing = outcome.closing
        for command in outcome.commands:
            self._carry_out(command)

    def _carry_out(self, command: ladder.Command) -> None:
        match command:
            case Sweep(number):
                self._sweeps = number
                self._order(SweepOrder(number))
            case Kill(number, reason):
                self._sweeps = number
                # Both try: the measurer may be stopped, and we may be no user who is allowed to.
                self._order(KillEnvoy(number))
                self.end_envoy(reason)
            case Wait(seconds):
                self._later(seconds, ladder.Settled())
            case Closed(destroyed, killed):
                how, reason = "Envoy was killed" if killed else "verified", self._reason
                self._finish(Told(Happening.CLOSED, how, destroyed, self._steps, reason))
            case Bounded(left):
                how = f"{left} connections end by their duration cap"
                self._finish(Told(Happening.BOUNDED, how, reason=self._reason))

    def _later(self, seconds: float, event: ladder.Event) -> None:
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(seconds, self._climb, event))

    def _finish(self, told: Told) -> None:
        self._abandon_closing()
        self._tell(told)

    def _abandon_closing(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._closing = None
