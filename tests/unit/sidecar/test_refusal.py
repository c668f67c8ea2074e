"""What those whom Envoy refuses are told: enough to ask about, nothing of the workload."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation import release
from attestation.instance import InstanceId
from attestation.layers import Layer
from attestation.violation import Violation, ViolationClass
from sidecar.causes import Causes
from sidecar.freshness import Now, Rules, State
from sidecar.latch import Latch
from xds.resources.rbac import policy_name

INSTANCE = InstanceId("i-" + "0" * 32)
NOW = Now(boot=10.0, wall=1000.0)


def violation(violation_class: ViolationClass) -> Violation:
    return Violation("file-modified", violation_class, Layer.FILES, "/srv/secret", "/srv/secret: other content", 9.0)


@pytest.mark.parametrize("violation_class", ViolationClass)
def test_it_is_the_kind_and_the_name_that_the_authority_gives_the_cause(
    tmp_path: Path, violation_class: ViolationClass
) -> None:
    causes, found = Causes(Latch(tmp_path), lambda _: None), violation(violation_class)
    causes.recalled(INSTANCE, State(Rules()))
    name = release.cause_id(INSTANCE, generation=3, kind=violation_class, text=found.text, at_ms=999_000)
    told = causes.refusal(3, found, NOW)
    assert told == f"file-modified:{name}"
    assert policy_name(told) == told
    assert "secret" not in told


def test_before_anything_is_pinned_it_is_the_kind_alone_and_without_a_cause_nothing(tmp_path: Path) -> None:
    causes = Causes(Latch(tmp_path), lambda _: None)
    assert causes.refusal(1, violation(ViolationClass.DRIFT), NOW) == "file-modified"
    assert causes.refusal(1, None, NOW) == ""
