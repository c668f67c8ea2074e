"""The list of denials as it is now: made again when something changed, told to every session when it is another one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attestation.errors import Unavailable
from attestation.instance import InstanceId
from authority import denials
from authority.denials import SKEW_MS, Certificate, Listing, Registered
from authority.issuer.ca import utc
from authority.issuer.crl import Revoked
from authority.issuer.issuer import Issuer
from authority.store.records import Claim, Enrolled, Listed
from authority.store.store import Store
from telemetry.names import Event
from wire.messages import Denials, Denied, DeniedLeaf

_LEAST_PAUSE = 0.05
"""Seconds between two lists: what changes meanwhile shares the next one, as every list is work for every Envoy."""
_AGAIN = 1.0
"""Seconds until it is tried again when the store did not answer."""


class Denying:
    """registered: the registrations, by name. announce: tells every session. clock: Unix seconds.

    `start` it before anything else, then `run` it.
    """

    def __init__(
        self,
        store: Store,
        issuer: Issuer,
        registered: Callable[[], Mapping[str, Registered]],
        announce: Callable[[Denials], None],
        clock: Callable[[], float],
        log: Any,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._registered = registered
        self._announce = announce
        self._clock = clock
        self._log = log
        self._changed = asyncio.Event()
        self._addresses: frozenset[str] = frozenset()
        self._spared: frozenset[tuple[InstanceId, Claim]] = frozenset()
        self._current = Denials(0, (), b"")

    @property
    def current(self) -> Denials:
        return self._current

    @property
    def version(self) -> int:
        return self._current.version

    async def start(self) -> None:
        """The list that was in force before a restart, or its successor. Raises Unavailable."""
        await self._look(first=True)

    def changed(self) -> None:
        """Somebody was quarantined or released, or policy changed."""
        self._changed.set()

    def aged(self) -> None:
        """Time went on: certificates of who is on the list end, and leases of who claims an address of theirs."""
        if self._current.denied:
            self.changed()

    def listens(self, enrolled: Enrolled) -> None:
        """Told of who is affirmed, and of who listens elsewhere.

        Whoever is live at an address that is on the list, for somebody else, is to be reached there again at once.
        """
        if enrolled.standing.quarantined or not self._addresses.isdisjoint(enrolled.addresses):
            self.changed()

    async def run(self) -> None:
        """Until cancelled. A store that does not answer leaves the list as it was, and is asked again."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._look()
            except Unavailable as error:
                self._log.warning(Event.DENIALS_LATE, why=error.sentence)
                self._changed.set()
                await asyncio.sleep(_AGAIN)
            else:
                await asyncio.sleep(_LEAST_PAUSE)

    async def _look(self, *, first: bool = False) -> None:
        now_ms = int(self._clock() * 1000)
        registered = self._registered()
        enforced = frozenset(name for name, each in registered.items() if each.enforced)
        suspects = await self._store.suspects(
            enforced, registered.keys() - enforced, now_ms=now_ms, over_ms=now_ms - SKEW_MS
        )
        # Off the event loop, like the signing: to read what a long list names takes 0.1 s.
        listings = await asyncio.to_thread(
            denials.listed, suspects, registered, now_ms=now_ms, last_ms=self._issuer.latest_ms
        )
        self._tell_spared(listings)
        version = await self._store.denials_version(denials.digest(listings), now_ms)
        if version.version == self.version and not first:
            return
        self._current = await asyncio.to_thread(self._made, version, listings)
        self._addresses = frozenset(address for each in listings for address in each.addresses)
        self._announce(self._current)
        if suspects.left_out:
            self._log.warning(Event.DENIALS_CUT, instances=suspects.left_out, mend=_MEND_LEFT_OUT)

    def _tell_spared(self, listings: Sequence[Listing]) -> None:
        """Each claim once, for as long as the instance that it spares is on the list."""
        listed = {each.instance for each in listings}
        told = {(denied, claim) for denied, claim in self._spared if denied in listed}
        found = [(each.instance, claim) for each in listings for claim in each.spared]
        for denied, claim in found:
            if (denied, claim) not in told:
                self._log.warning(
                    Event.ADDRESS_SPARED,
                    instance=str(denied),
                    claimant=str(claim.instance),
                    address=claim.address,
                    mend=_MEND_SPARED,
                )
        self._spared = frozenset(told.union(found))

    def _made(self, version: Listed, listings: Sequence[Listing]) -> Denials:
        """The message. Only what is new on the list is signed anew."""
        known = {leaf.serial: leaf for each in self._current.denied for leaf in each.leaves}
        revoked = [
            Revoked(held.round.serial, utc(each.since_ms / 1000)) for each in listings for held in each.certificates
        ]
        crl = self._issuer.crl(revoked, version.version, utc(version.at_ms / 1000))
        return Denials(version.version, tuple(self._denied(each, known) for each in listings), crl)

    def _denied(self, listing: Listing, known: Mapping[bytes, DeniedLeaf]) -> Denied:
        serials = [_serial(each) for each in listing.certificates]
        leaves = tuple(
            known.get(serial) or self._leaf(listing, each, serial)
            for serial, each in zip(serials, listing.certificates, strict=True)
        )
        return Denied(listing.instance, listing.spiffe_id, listing.cause, leaves, listing.addresses)

    def _leaf(self, listing: Listing, held: Certificate, serial: bytes) -> DeniedLeaf:
        fingerprint = self._issuer.fingerprint(held.round, held.result.spiffe_id, listing.instance)
        return DeniedLeaf(serial, fingerprint, held.round.lease_end_ms // 1000 * 1000)


def _serial(held: Certificate) -> bytes:
    return held.round.serial.to_bytes((held.round.serial.bit_length() + 7) // 8, "big")


_MEND_SPARED = "Peers go on calling the address. Quarantine the claimant as well if it does not listen there."
_MEND_LEFT_OUT = "Peers refuse the latest; each of the others until its certificate ends by its own sidecar alone."
