"""What an instance's latest evidence says of system calls, for whoever looks. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from attestation import calls
from attestation.errors import MalformedEvidence
from attestation.instance import InstanceId
from attestation.tally import Offence, amount
from authority.latest import Told


@dataclass(frozen=True, slots=True)
class CallMade:
    """count: how often since watching began, rounded up to a power of two; 0 where that is not counted."""

    call: str
    count: int


@dataclass(frozen=True, slots=True)
class InstanceCalls:
    """at_ms: when the evidence was appraised, Unix milliseconds. watching: empty where the layer is not at hand.

    rate, peak, events: a second, as attestation.tally has them, rounded up to powers of two. made: the layer. outside:
    who made each call outside of the baseline first, and how long before the measurement. more: calls outside of it
    that have no entry there.
    """

    instance: InstanceId
    registration: str
    at_ms: int
    watching: str
    rate: int
    peak: int
    events: int
    made: tuple[CallMade, ...]
    outside: tuple[Offence, ...]
    more: int


def told(latest: Told, body: bytes | None) -> InstanceCalls | None:
    """None where its evidence says nothing of calls. body: the layer, None where it is not at hand."""
    tally = latest.calls
    if tally is None:
        return None
    try:
        layer = calls.unpack(body) if body is not None else None
    except MalformedEvidence:  # it was contraindicated for that
        layer = None
    names = layer.calls if layer is not None else ()
    counts = tally.counts if len(tally.counts) == len(names) else (0,) * len(names)
    return InstanceCalls(
        instance=latest.instance,
        registration=latest.registration,
        at_ms=latest.at_ms,
        watching=layer.watching if layer is not None else "",
        rate=amount(tally.rate),
        peak=amount(tally.peak),
        events=amount(tally.events),
        made=tuple(CallMade(name, amount(count)) for name, count in zip(names, counts, strict=True)),
        outside=tally.offences,
        more=tally.more,
    )
