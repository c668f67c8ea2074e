"""Each instance's latest evidence, as it was signed: for operators, who want to know what other policies would say."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from attestation.claims import Claims
from attestation.digests import Digest
from attestation.instance import InstanceId
from attestation.layers import Layer
from attestation.tally import Tally

MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Told:
    """evidence: the signed bytes. at_ms: when it was appraised, Unix milliseconds. calls: what it says of calls beside
    their layer, whose digest is call_layer.
    """

    instance: InstanceId
    registration: str
    evidence: bytes
    at_ms: int
    calls: Tally | None = None
    call_layer: Digest = ""

    @classmethod
    def of(cls, registration: str, claims: Claims, evidence: bytes, at_ms: int) -> Told:
        layer = next((each.digest for each in claims.layers if each.layer is Layer.SYSCALLS), "")
        return cls(claims.instance, registration, evidence, at_ms, claims.calls, layer)


class Latest:
    """In memory; who has been silent the longest is dropped first. After a restart the next rounds fill it."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._held: OrderedDict[InstanceId, Told] = OrderedDict()
        self._size = 0

    def put(self, told: Told) -> None:
        before = self._held.pop(told.instance, None)
        self._held[told.instance] = told
        self._size += len(told.evidence) - (len(before.evidence) if before is not None else 0)
        while self._size > self._most:
            _, dropped = self._held.popitem(last=False)
            self._size -= len(dropped.evidence)

    def of(self, instance: InstanceId) -> Told | None:
        """None where it has not attested since the start."""
        return self._held.get(instance)

    def every(self) -> tuple[Told, ...]:
        return tuple(self._held.values())
