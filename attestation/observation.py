"""One layer, measured once."""

from __future__ import annotations

from dataclasses import dataclass

from attestation.digests import Digest
from attestation.layers import Layer, Method
from attestation.tally import Tally


@dataclass(frozen=True, slots=True)
class Observation:
    """A layer's state. Ages count from the moment the measurement began: what changed meanwhile is not in it.

    began, full_began: CLOCK_BOOTTIME seconds; full_began belongs to the last measurement that read everything.
    events: how many facts of this layer the measurer had emitted by then, so that order can be checked. tally: of the
    layer of calls, what changes all the time.
    """

    layer: Layer
    digest: Digest
    method: Method
    began: float
    full_began: float
    items: int
    events: int = 0
    tally: Tally | None = None
