"""Serving a lease and closing, both synchronous: when they return, Envoy has the bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from attestation.channel import KillEnvoy, Message, Swept
from attestation.channel import Sweep as SweepOrder
from sidecar.delivery import ladder
from sidecar.delivery.ending import Ending
from sidecar.delivery.ladder import Bounded, Closed, Closing, Kill, Quit, Sweep, Wait
from sidecar.delivery.lifetime import lifetime
from sidecar.delivery.poison import Poison
from sidecar.delivery.resources import Catalogue, Identity
from sidecar.freshness import Lease, Now
from xds.acks import Publication, Settlement
from xds.acks import Verdict as Answer
from xds.server import Server
from xds.snapshot import Snapshot


class Happening(StrEnum):
    """What delivery tells its owner, each with a detail for the log."""

    DRAINING = "draining"
    CLOSED = "closed"
    BOUNDED = "closed-bounded"
    OPENED = "opened"
    ESCALATED = "escalated"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Told:
    """steps: when a closing reached each rung, in CLOCK_BOOTTIME seconds by name. reason: what a closing was for."""

    happening: Happening
    detail: str
    destroyed: int = 0
    steps: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """What is open: the identity, how long the lease lets it be so (None: no end), and the lifetime it was given."""

    identity: Identity
    lease: Lease | None
    ttl: float


def _nobody_asks(version: int) -> None:
    return None


class Delivery:
    """One Envoy's identity.

    clock: both clocks. order: hands a message to the measurer, at once. tell: called with each Happening.
    refuses: called when Envoy has taken over a version of whom it refuses, each time it is another one.
    escalate_after: seconds that Envoy may take to acknowledge a closing. admin: Envoy's admin socket, where it is ours.
    """

    def __init__(
        self,
        server: Server,
        catalogue: Catalogue,
        poison: Poison,
        *,
        clock: Callable[[], Now],
        order: Callable[[Message], None],
        tell: Callable[[Told], None],
        escalate_after: float,
        silent: bool,
        refuses: Callable[[int], None] = _nobody_asks,
        admin: Path | None = None,
    ) -> None:
        self._server = server
        self._catalogue = catalogue
        self._poison = poison
        self._clock = clock
        self._order = order
        self._tell = tell
        self._refuses = refuses
        self._refused = 0
        self._escalate_after = escalate_after
        self._silent = silent
        self._admin = admin
        self._open = False
        self._held: Held | None = None
        self._sweeps = 0
        self._closing: Closing | None = None
        self._ending: Ending | None = None
        self._draining = False
        self._steps: dict[str, float] = {}
        self._timers: list[asyncio.TimerHandle] = []

    def start(self) -> None:
        """Poison before the first lease, unless Envoy is to stay initialising until then."""
        if not self._silent:
            self._server.publish(self._catalogue.closed(self._poison, "no-lease-yet"))

    def retime(self, catalogue: Catalogue, escalate_after: float) -> None:
        """Other times from the next publication or heartbeat on."""
        self._catalogue = catalogue
        self._escalate_after = escalate_after

    def refuse(self, catalogue: Catalogue) -> None:
        """Other peers are refused from now on; what is open to the rest goes on undisturbed."""
        self._catalogue = catalogue
        if self._held is not None:
            self._show(self._held.identity, self._held.lease)

    def serve(self, identity: Identity, lease: Lease | None) -> None:
        """Brings Envoy to this identity. Coming from closed, requests pass only once the identity is acknowledged.

        lease: what Envoy is open for outlives neither end of it, even if we do not live to say so. None: no end.
        """
        drained = self._draining
        self._abandon_closing()
        if self._open and self._held is not None:
            self._show(identity, lease)
            return
        self._open = True
        kept = self._ttl(lease) if drained else 0.0
        publication = self._published(self._catalogue.opening(identity, "opening", listening_for=kept))
        publication.on_settled(lambda settlement: self._let_pass(settlement, identity, lease, publication))

    def withhold(self, reason: str) -> None:
        """Nothing of an identity for whoever asks now; `serve` gives it again. Not where a closing is under way."""
        if self._open:
            self._open, self._held = False, None
            self._server.publish(self._catalogue.closed(self._poison, reason))

    def close(self, reason: str) -> None:
        """Poison and denial into every stream, then the order to cut what is open; the rest climbs the ladder."""
        began = self._clock().boot
        publication = self._server.publish(self._catalogue.closed(self._poison, reason))
        self._sweeps += 1
        self._order(SweepOrder(self._sweeps, verify=False))
        # Nothing above this line waits; everything below is bookkeeping.
        self._abandon_closing()
        self._steps = {"began": began, "written": self._clock().boot}
        self._open, self._held = False, None
        self._ending = Ending(self._server.client, self._admin, self._envoy_ended)
        self._closing = Closing(reason, first_sweep=self._sweeps, quits=self._ending.can_be_asked)
        self._later(self._escalate_after, ladder.Unacknowledged())
        publication.on_rejected(lambda answer: self._climb(ladder.Rejected(answer.reason)))
        publication.on_settled(lambda settlement: self._settled(settlement))

    def drain(self, reason: str, seconds: float) -> None:
        """Poison and denial at once, so that nothing new begins; what is open is cut when so many seconds are over.

        It ends earlier by the end of the lease, and at once where Envoy does not take the poison in time.
        """
        held = self._held
        allowed = min(seconds, held.ttl if held is not None else 0.0)
        if held is None or allowed <= 0:
            self.close(reason)
            return
        publication = self._server.publish(self._catalogue.draining(self._poison, reason, held.ttl))
        self._abandon_closing()
        self._draining, self._open, self._held = True, False, None

        def cut() -> None:
            self.close(reason)

        loop = asyncio.get_running_loop()
        unacknowledged = loop.call_later(self._escalate_after, cut)
        self._timers += [unacknowledged, loop.call_later(allowed, cut)]
        publication.on_rejected(lambda _: cut() if self._draining else None)
        publication.on_settled(lambda settlement: unacknowledged.cancel() if self._taken(settlement) else None)
        self._tell(Told(Happening.DRAINING, f"what is open may end by itself for {allowed:.3g} s", reason=reason))

    @property
    def _reason(self) -> str:
        return self._closing.reason if self._closing is not None else ""

    @property
    def closing(self) -> bool:
        """Is a closing under way, not yet verified? What drains is not yet being closed."""
        return self._closing is not None

    @property
    def draining(self) -> bool:
        """Is what was open when it closed still allowed to go on?"""
        return self._draining

    def heartbeat(self) -> None:
        """Renews what Envoy would drop by itself. Only for a caller who is healthy.

        What is open gets the dead-man time, or what is left of its lease. What drains is not renewed.
        """
        held = self._held
        if self._draining:
            return
        if held is not None and self._ttl(held.lease) != held.ttl:
            self._show(held.identity, held.lease)
        else:
            self._server.heartbeat()

    def swept(self, done: Swept) -> None:
        """The measurer's answer to a sweep or a kill."""
        self._steps.setdefault("swept", done.at)
        self._climb(ladder.SweepDone(done.number, done.destroyed, done.left))

    def end_envoy(self, reason: str) -> None:
        """SIGKILL from here, in case nobody else can cut its open connections any more.

        Where we may not, for it runs as another user, they end by their duration cap.
        """
        ending = self._ending
        if ending is None or self._server.client is None:
            return
        refused = ending.kill()
        self._tell(Told(Happening.ESCALATED, f"{reason}; not by us: {refused}" if refused else reason))

    def stop(self) -> None:
        self._abandon_closing()

    def _show(self, identity: Identity, lease: Lease | None) -> Publication | None:
        """The open snapshot, with the lifetime that it may have from now on; nothing where the lease is over."""
        ttl = self._ttl(lease)
        if ttl <= 0:
            return None
        self._held = Held(identity, lease, ttl)
        publication = self._published(self._catalogue.opened(identity, ttl))
        version = self._catalogue.refusals.version
        publication.on_settled(lambda settlement: self._refusing(version, settlement))
        return publication

    def _refusing(self, version: int, settlement: Settlement) -> None:
        """Where no Envoy is there, none refuses anybody."""
        if version != self._refused and self._server.client is not None and self._taken(settlement):
            self._refused = version
            self._refuses(version)

    def _ttl(self, lease: Lease | None) -> float:
        return lifetime(self._catalogue.ttl, lease, self._clock())

    def _published(self, snapshot: Snapshot) -> Publication:
        publication = self._server.publish(snapshot)
        publication.on_rejected(self._rejected)
        return publication

    def _rejected(self, answer: Answer) -> None:
        self._tell(Told(Happening.REJECTED, f"Envoy rejected {', '.join(answer.resources)}: {answer.reason}"))

    def _let_pass(self, settlement: Settlement, identity: Identity, lease: Lease | None, opening: Publication) -> None:
        overtaken = self._closing is not None or self._draining or not self._open
        if overtaken or not settlement.in_force:
            return
        opened = self._show(identity, lease)
        if opened is not None:
            opened.on_settled(lambda _: self._tell(Told(Happening.OPENED, f"after {opening.sequence}")))

    def _settled(self, settlement: Settlement) -> None:
        if self._taken(settlement):
            self._steps["acknowledged"] = self._clock().boot
            self._climb(ladder.Acknowledged())

    def _taken(self, settlement: Settlement) -> bool:
        """Only a running Envoy's own acknowledgement counts: one that lost its stream still serves the old identity."""
        unreached = self._server.client is not None and self._server.streams == 0
        return settlement.in_force and not settlement.gone and not unreached

    def _envoy_ended(self) -> None:
        self._steps["ended"] = self._clock().boot
        self._climb(ladder.Ended())

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
            case Quit(reason):
                self._quit(reason)
            case Kill(number, reason):
                self._sweeps = number
                self._steps["killed"] = self._clock().boot
                # Both try: the measurer may be stopped, and we may be no user who is allowed to.
                self._order(KillEnvoy(number))
                self.end_envoy(reason)
            case Wait(seconds, event):
                self._later(seconds, event)
            case Closed(destroyed, way):
                self._steps["verified"] = self._clock().boot
                self._finish(Told(Happening.CLOSED, way, destroyed, self._steps, self._reason))
            case Bounded(left):
                how = f"{left} connections end by their duration cap"
                self._finish(Told(Happening.BOUNDED, how, steps=self._steps, reason=self._reason))

    def _quit(self, reason: str) -> None:
        if self._ending is None:
            return
        self._steps["quit"] = self._clock().boot
        self._tell(Told(Happening.ESCALATED, f"{reason}; asked to quit"))
        refused = self._ending.ask()
        if refused:
            self._soon(ladder.QuitFailed(f"{reason}; it cannot be asked to quit: {refused}"))

    def _soon(self, event: ladder.Event) -> None:
        self._later(0.0, event)

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
        if self._ending is not None:
            self._ending.close()
            self._ending = None
        self._closing, self._draining = None, False
