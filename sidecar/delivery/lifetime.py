"""How long what is open may live in Envoy: without another word of ours, and after a closing that lets it drain."""

from __future__ import annotations

from attestation.layers import Layer
from attestation.violation import Violation
from policies.model.policy import PolicySpec
from sidecar.states import Lease, Now

_LEAST = 0.001
"""Seconds; what is left below it is over by the time that it arrives."""


def lifetime(deadman: float, lease: Lease | None, now: Now) -> float:
    """Seconds, from now: the dead-man time, or what is left of the lease. 0 where that is over. lease None: no end."""
    if lease is None:
        return deadman
    left = min(lease.boot_end - now.boot, lease.wall_end - now.wall)
    return min(deadman, left) if left >= _LEAST else 0.0


def drains_for(spec: PolicySpec, cause: Violation | None) -> float:
    """Seconds that what is open may go on after this closing; 0 cuts at once.

    Only drift of what was watched drains, where policy says `connections: drain`, and no longer than the dead-man time,
    which policy allows an Envoy that nobody answers for as well. Tamper, watchers that are lost or attacked, the end of
    a lease or of the workload: all of these cut.
    """
    if spec.connections != "drain" or cause is None or cause.tamper or _of_the_watchers(cause):
        return 0.0
    return spec.deadman


def _of_the_watchers(cause: Violation) -> bool:
    return cause.layer is Layer.ATTESTER or cause.kind.startswith("collector-")
