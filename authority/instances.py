"""The instances that are talked to just now, kept in memory beside the store, which has the last word."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from attestation.errors import Refused
from attestation.instance import InstanceId
from authority.store.records import Accepted, Candidate, Enrolled
from authority.store.store import Store
from wire.problems import Kind

MOST_REMEMBERED = 50_000
_MOST_SERIALS = 4
"""Of an instance: what its Envoy serves is the certificate of the last round, or of one shortly before."""


class Instances:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[InstanceId, Enrolled] = OrderedDict()
        self._issued: dict[InstanceId, int] = {}

    async def get(self, instance: InstanceId) -> Enrolled:
        """Raises Refused (instance-unknown)."""
        found = self._known.get(instance) or await self._store.load(instance)
        if found is None:
            raise Refused(
                "this instance has not enrolled", kind=Kind.INSTANCE_UNKNOWN, where=str(instance), mend="Enrol again."
            )
        self.put(found)
        return found

    def put(self, enrolled: Enrolled) -> None:
        self._known[enrolled.instance] = enrolled
        self._known.move_to_end(enrolled.instance)
        while len(self._known) > MOST_REMEMBERED:
            dropped, _ = self._known.popitem(last=False)
            self._issued.pop(dropped, None)

    def forget(self, instance: InstanceId) -> None:
        """Read it from the store next time."""
        self._known.pop(instance, None)

    async def issued(self, enrolled: Enrolled, serial: int) -> bool:
        """Was a certificate with this serial number given to it? The store is asked where memory does not say."""
        return serial in enrolled.serials or await self._store.issued(enrolled.instance, serial)

    def counted(self, enrolled: Enrolled, judged: Candidate, accepted: Accepted) -> Enrolled:
        """A round of this instance was accepted. What became known of it meanwhile is kept."""
        known = self._known.get(enrolled.instance)
        current = known or enrolled
        if current.thumbprint != judged.thumbprint:
            return enrolled
        after = replace(
            current,
            sequence=max(current.sequence, judged.sequence),
            generation=max(current.generation, judged.generation),
            full_required=current.full_required and not judged.earned,
            serials=tuple(dict.fromkeys((accepted.serial, *current.serials)))[:_MOST_SERIALS],
        )
        if known is not None:
            self.put(after)
        return after

    def next_sequence(self, enrolled: Enrolled, now_ms: int) -> int:
        """A number that no nonce of this instance has carried.

        Counting on from the clock needs no memory of what was issued before a restart.
        """
        issued = max(self._issued.get(enrolled.instance, 0) + 1, enrolled.sequence + 1, now_ms)
        self._issued[enrolled.instance] = issued
        return issued
