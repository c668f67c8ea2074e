"""What is watched and how well, put together from what was tried."""

from __future__ import annotations

from attestation.coverage import CollectorCoverage, Coverage, Cutting, Grade, Isolation
from attestation.layers import Layer

_MEASURED = frozenset((Layer.FILES, Layer.PROCESSES))


def coverage(
    collectors: tuple[CollectorCoverage, ...], cutting: Cutting, guards: bool, isolation: Isolation
) -> Coverage:
    """guards: an Envoy is guarded and the guardian has not fired."""
    measured = _MEASURED | {each.layer for each in collectors}
    closes = guards and cutting is not Cutting.CAPPED
    return Coverage(
        collectors=collectors,
        absent=tuple(layer for layer in Layer if layer not in measured),
        cutting=cutting,
        grade=Grade.CLOSED_BY_GUARDIAN if closes else Grade.BOUNDED_NEW_CONNECTIONS_ONLY,
        isolation=isolation,
    )
