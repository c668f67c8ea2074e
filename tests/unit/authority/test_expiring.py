"""Reference values near their end: who is told when, and what a lease gets of the time that is left."""

from __future__ import annotations

from typing import Any

import pytest

from attestation.quantities import instant_text
from attestation.spiffe import SpiffeId
from authority.expiring import Expiring
from authority.rules import Ruling
from policies.model.governing import Governing
from policies.model.inheritance import effective
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import ReferenceSpec, ReferenceValues
from policies.model.registration import RegistrationSpec, WorkloadRegistration

ENDS = 1_800_000_000
DAY = 86_400


def ruling(ends: int | None = ENDS, *, name: str = "web", mode: str = "enforce") -> Ruling:
    named = Metadata(name=name)
    spec = ReferenceSpec.model_validate({} if ends is None else {"expires": instant_text(ends)})
    governing = Governing(
        WorkloadRegistration(
            metadata=named, spec=RegistrationSpec(spiffe_id="spiffe://example.org/web", references=name)
        ),
        AttestationPolicy(metadata=named, spec=PolicySpec.model_validate({"mode": mode})),
        effective(ReferenceValues(metadata=named, spec=spec)),
    )
    return Ruling(name, SpiffeId("example.org", "/web"), governing, "a" * 64, "")


class Lines:
    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.said.append((event, fields["references"]))
        assert fields["at"] == instant_text(ENDS)


def test_each_nearing_of_the_end_is_told_once() -> None:
    lines = Lines()
    expiring = Expiring(lines)
    for left, told in ((15 * DAY, 0), (14 * DAY, 1), (2 * DAY, 1), (DAY, 2), (1, 2), (0, 3), (-DAY, 3)):
        for _ in range(2):
            expiring.look([ruling(), ruling(None, name="api"), ruling()], ENDS - left)
            assert len(lines.said) == told, left
    assert lines.said == [("references-expire", "web"), ("references-expire", "web"), ("references-expired", "web")]


def test_an_authority_that_starts_late_tells_what_has_expired_at_once_and_once() -> None:
    lines = Lines()
    expiring = Expiring(lines)
    for _ in range(2):
        expiring.look([ruling()], ENDS + DAY)
    assert lines.said == [("references-expired", "web")]


def test_what_was_prolonged_and_cut_again_is_told_again() -> None:
    lines = Lines()
    expiring = Expiring(lines)
    for ends in (ENDS, ENDS + 30 * DAY, ENDS):
        expiring.look([ruling(ends)], ENDS - DAY)
    assert lines.said == [("references-expire", "web")] * 2


@pytest.mark.parametrize(
    ("mode", "now", "end"),
    [
        ("enforce", ENDS - 100, ENDS - 40),
        ("enforce", ENDS - 30, ENDS),
        ("enforce", ENDS, ENDS + 60),
        ("audit", ENDS - 30, ENDS + 30),
        ("observe", ENDS - 30, ENDS + 30),
    ],
    ids=["long before", "shortly before", "after it: nothing rests on it", "audit closes nothing", "nor does observe"],
)
def test_a_lease_ends_with_what_it_rests_on(mode: str, now: int, end: int) -> None:
    assert ruling(mode=mode).founded((now + 60) * 1000, now * 1000) == end * 1000


def test_a_lease_that_rests_on_what_never_expires_is_as_long_as_policy_says() -> None:
    assert ruling(None).founded(123, 45) == 123
