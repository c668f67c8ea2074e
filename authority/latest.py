"""Each instance's latest evidence, as it was signed: for operators, who want to know what other policies would say."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from attestation.instance import InstanceId

MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Told:
    """evidence: the signed bytes. at_ms: when it was appraised, Unix milliseconds."""

    instance: InstanceId
    registration: str
    evidence: bytes
    at_ms: int


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

    def every(self) -> tuple[Told, ...]:
        return tuple(self._held.values())
