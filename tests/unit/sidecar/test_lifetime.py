"""How long what is open may live without us, and what may drain."""

from __future__ import annotations

import pytest

from attestation.layers import Layer
from attestation.violation import Violation, ViolationClass
from policies.model.policy import PolicySpec
from sidecar.delivery.lifetime import drains_for, lifetime
from sidecar.states import Lease, Now

NOW = Now(100.0, 5_000.0)
DRAIN = PolicySpec.model_validate({"connections": "drain", "deadman": "3s"})


def found(
    kind: str = "file-modified", of: ViolationClass = ViolationClass.DRIFT, layer: Layer = Layer.FILES
) -> Violation:
    return Violation(kind, of, layer, "/srv/app/main", "it differs", 100.0)


@pytest.mark.parametrize(
    ("boot_end", "wall_end", "expected"),
    [(200.0, 5_100.0, 3.0), (101.0, 5_100.0, 1.0), (200.0, 5_002.0, 2.0), (100.0, 5_100.0, 0.0), (90.0, 5_100.0, 0.0)],
)
def test_it_is_the_dead_man_time_or_what_is_left_of_the_lease_on_either_clock(
    boot_end: float, wall_end: float, expected: float
) -> None:
    assert lifetime(3.0, Lease(1, boot_end, wall_end), NOW) == pytest.approx(expected)


def test_a_life_too_short_to_arrive_is_none() -> None:
    assert lifetime(3.0, Lease(1, 100.0005, 5_100.0), NOW) == 0.0


def test_where_no_lease_ends_anything_it_is_the_dead_man_time() -> None:
    assert lifetime(3.0, None, NOW) == 3.0


def test_drift_drains_for_the_dead_man_time_where_policy_says_so() -> None:
    assert drains_for(DRAIN, found()) == 3.0
    assert drains_for(PolicySpec(), found()) == 0.0


@pytest.mark.parametrize(
    "cause",
    [
        None,
        found(of=ViolationClass.TAMPER),
        found("collector-dead"),
        found("measurer-lost", layer=Layer.ATTESTER),
        found("key-socket-second-client", layer=Layer.ATTESTER),
    ],
    ids=lambda cause: cause.kind if cause is not None else "no cause",
)
def test_whatever_else_closes_cuts_at_once(cause: Violation | None) -> None:
    assert drains_for(DRAIN, cause) == 0.0
