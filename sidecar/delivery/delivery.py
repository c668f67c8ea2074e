"""Serving a lease and closing, both synchronous: when they return, Envoy has the bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attestation.channel import KillEnvoy, Message, Sweep, Swept
from sidecar.delivery.carried import CarriedOut
from sidecar.delivery.climbing import Climbing, Means
from sidecar.delivery.lifetime import lifetime
from sidecar.delivery.poison import Poison
from sidecar.delivery.resources import Catalogue, Identity
from sidecar.delivery.told import Happening, Told
from sidecar.states import Lease, Now
from xds.acks import Publication, Settlement
from xds.acks import Verdict as Answer
from xds.server import Server
from xds.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Offer:
    """An identity, and the lease that says how long it may be open. None: no end."""

    identity: Identity
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Opening:
    """What Envoy is given while it still denies: it lets pass once it has acknowledged this very publication."""

    offer: Offer
    publication: Publication


@dataclass(frozen=True, slots=True)
class Held:
    """What is open, with the lifetime in seconds that it was given."""

    offer: Offer
    ttl: float


def _nobody_asks(version: int) -> None:
    return None


def _nothing_to_sever() -> None:
    return None


class Delivery:
    """One Envoy's identity.

    clock: both clocks. order: hands a message to the measurer, at once. tell: called with each Happening.
    refuses, sever: as of CarriedOut; what is open to the denied ends at either. escalate_after: seconds that Envoy may
    take to acknowledge a closing, or a list of denials. admin: Envoy's admin socket, where it is ours.

    Envoy is closed, or has an opening, or is held open, or drains. Beside that a closing may be under way, and then it
    is closed: what is served meanwhile waits, and any later closing is the end of it.
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
        sever: Callable[[], None] = _nothing_to_sever,
        admin: Path | None = None,
    ) -> None:
        self._server = server
        self._catalogue = catalogue
        self._poison = poison
        self._clock = clock
        self._order = order
        self._tell = tell
        self._sever = sever
        self._escalate_after = escalate_after
        self._silent = silent
        self._means = Means(server, clock, self._sweep, tell, admin)
        self._carried = CarriedOut(self._means.taken, refuses, sever)
        self._opening: Opening | None = None
        self._held: Held | None = None
        self._waiting: Offer | None = None
        self._closing: Climbing | None = None
        self._draining: tuple[asyncio.TimerHandle, ...] = ()
        self._newest_sweep = 0

    def start(self) -> None:
        """Poison before the first lease, unless Envoy is to stay initialising until then."""
        if not self._silent:
            self._server.publish(self._catalogue.closed(self._poison, "no-lease-yet"))

    def stop(self) -> None:
        """Nothing is carried on, and nothing that waits is served."""
        self._nothing_is_open()
        self._carried.forget()
        if self._closing is not None:
            self._closing.stop()
            self._closing = None

    def retime(self, catalogue: Catalogue, escalate_after: float) -> None:
        """Other times from the next publication or heartbeat on."""
        self._catalogue = catalogue
        self._escalate_after = escalate_after

    def refuse(self, catalogue: Catalogue) -> None:
        """Other peers are refused from now on; what is open to the rest goes on undisturbed."""
        self._catalogue = catalogue
        if self._held is not None:
            self._show(self._held.offer)
        elif self._draining or self._opening is not None:
            # Everybody is refused by now. What drains, or did so until this opening, may be open to them.
            self._sever()

    @property
    def refuses(self) -> int:
        """The version of the list of denials that this Envoy has acknowledged; 0 before the first."""
        return self._carried.version

    def seated(self) -> None:
        """Another Envoy: nothing of an identity for it before the next `serve`, and nothing counts of an earlier one's.

        What the other had open ended with it; a closing that is under way is still verified.
        """
        was_given = self._opening is not None or self._held is not None
        self._opening = self._held = self._waiting = None
        self._carried.forget()
        if was_given:
            self._server.publish(self._catalogue.closed(self._poison, "not-yet-known"))

    def serve(self, identity: Identity, lease: Lease | None) -> None:
        """Brings Envoy to this identity. Coming from closed, requests pass only once the identity is acknowledged.

        lease: what Envoy is open for outlives neither end of it, even if we do not live to say so. None: no end.
        While a closing is under way this waits for its end, so that nothing of before lives on under it.
        """
        offer, self._waiting = Offer(identity, lease), None
        if self._closing is not None:
            self._waiting = offer
        elif self._held is not None:
            self._show(offer)
        else:
            self._give(offer)

    def close(self, reason: str) -> None:
        """Poison and denial into every stream, then the order to cut what is open; the rest climbs the ladder."""
        self._close(reason, self._escalate_after)

    def _close(self, reason: str, patience: float) -> None:
        """patience: seconds that Envoy may take to acknowledge the poison."""
        began = self._clock().boot
        publication = self._server.publish(self._catalogue.closed(self._poison, reason))
        self._sweep(Sweep(self._newest_sweep + 1, verify=False))
        # Nothing above this line waits; everything below is bookkeeping.
        self._nothing_is_open()
        if self._closing is not None:
            patience = self._closing.patience(patience)
            self._closing.stop()
        steps = {"began": began, "written": self._clock().boot}
        self._closing = Climbing(reason, self._newest_sweep, steps, self._means, self._closing_over)
        self._closing.begin(publication, patience)

    def drain(self, reason: str, seconds: float) -> None:
        """Poison and denial at once, so that nothing new begins; what is open is cut when so many seconds are over.

        It ends earlier by the end of the lease, and at once where Envoy does not take the poison in time.
        """
        held = self._held
        allowed = min(seconds, self._ttl(held.offer.lease)) if held is not None else 0.0
        if held is None or allowed <= 0:
            self.close(reason)
            return
        publication = self._server.publish(self._catalogue.draining(self._poison, reason, held.ttl))
        self._nothing_is_open()
        loop = asyncio.get_running_loop()
        unacknowledged = loop.call_later(self._escalate_after, self._close, reason, 0.0)
        self._draining = draining = (unacknowledged, loop.call_later(allowed, self.close, reason))
        self._tell(Told(Happening.DRAINING, f"what is open may end by itself for {allowed:.3g} s", reason=reason))
        publication.on_rejected(lambda _: self.close(reason) if self._draining is draining else None)
        publication.on_settled(lambda settled: unacknowledged.cancel() if self._means.taken(settled) else None)

    @property
    def closing(self) -> bool:
        """Is a closing under way, not yet verified? What drains is not yet being closed."""
        return self._closing is not None

    @property
    def draining(self) -> bool:
        """Is what was open when it closed still allowed to go on?"""
        return bool(self._draining)

    def heartbeat(self) -> None:
        """Renews what Envoy would drop by itself. Only for a caller who is healthy.

        What is open gets the dead-man time, or what is left of its lease. What drains is not renewed.
        """
        held = self._held
        if self._draining:
            return
        if held is not None and self._ttl(held.offer.lease) != held.ttl:
            self._show(held.offer)
        else:
            self._server.heartbeat()

    def swept(self, done: Swept) -> None:
        """The measurer's answer to a sweep or a kill."""
        if self._closing is not None:
            self._closing.swept(done)

    def end_envoy(self, reason: str) -> None:
        """SIGKILL from here, for a closing under way that nobody else can carry through any more."""
        if self._closing is not None:
            self._closing.end_envoy(reason)

    def _give(self, offer: Offer) -> None:
        """The identity while filters still deny, nothing where the lease is over. What drained until now is spared."""
        ttl = self._ttl(offer.lease)
        if ttl <= 0:
            return
        kept = ttl if self._draining else 0.0
        self._nothing_is_open()
        publication = self._published(self._catalogue.opening(offer.identity, "opening", listening_for=kept))
        self._opening = opening = Opening(offer, publication)
        publication.on_settled(lambda settlement: self._let_pass(opening, settlement))

    def _let_pass(self, opening: Opening, settlement: Settlement) -> None:
        if opening is not self._opening or not settlement.in_force:
            return
        shown = self._show(opening.offer)
        if shown is not None:
            told = Told(Happening.OPENED, f"after {opening.publication.sequence}")
            shown.on_settled(lambda settled: self._tell(told) if settled.in_force else None)

    def _show(self, offer: Offer) -> Publication | None:
        """The open snapshot, with the lifetime that it may have from now on; nothing where the lease is over."""
        ttl = self._ttl(offer.lease)
        if ttl <= 0:
            return None
        self._opening, self._held = None, Held(offer, ttl)
        publication = self._published(self._catalogue.opened(offer.identity, ttl))
        if self._server.client is not None:  # where no Envoy is there, none refuses anybody
            self._carried.told(self._catalogue.refusals.version, publication, self._escalate_after)
        return publication

    def _published(self, snapshot: Snapshot) -> Publication:
        publication = self._server.publish(snapshot)
        publication.on_rejected(self._rejected)
        return publication

    def _rejected(self, answer: Answer) -> None:
        self._tell(Told(Happening.REJECTED, f"Envoy rejected {', '.join(answer.resources)}: {answer.reason}"))

    def _ttl(self, lease: Lease | None) -> float:
        return lifetime(self._catalogue.ttl, lease, self._clock())

    def _sweep(self, order: Sweep | KillEnvoy) -> None:
        """A closing numbers its own from its first on; the next one goes on after them."""
        self._newest_sweep = order.number
        self._order(order)

    def _nothing_is_open(self) -> None:
        """And nothing waits to be."""
        self._opening = self._held = self._waiting = None
        for timer in self._draining:
            timer.cancel()
        self._draining = ()

    def _closing_over(self, told: Told) -> None:
        """However it ended: what was served meanwhile comes now, unless its lease is over by now."""
        self._closing = None
        self._tell(told)
        if self._waiting is not None:
            self.serve(self._waiting.identity, self._waiting.lease)
