"""What those whom Envoy refuses are told: enough to ask about, nothing of the workload."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation import release
from attestation.instance import InstanceId
from attestation.layers import Layer
from attestation.violation import Violation, ViolationClass
from sidecar.causes import Causes
from sidecar.latch import Latch
from sidecar.states import Now, Rules, State, Sticky
from wire.messages import Cause
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


def test_a_latched_cause_whose_report_died_with_its_run_is_told_again_under_the_same_name(tmp_path: Path) -> None:
    found, first = violation(ViolationClass.TAMPER), Causes(Latch(tmp_path), lambda _: None)
    first.recalled(INSTANCE, State(Rules()))
    first.latch(Sticky(1, found), NOW)
    again = Causes(Latch(tmp_path), lambda _: None)
    state = again.recalled(INSTANCE, State(Rules()))
    ((cause, at_ms),) = again.untold(state, ())
    name = release.cause_id(INSTANCE, generation=1, kind="tamper", text=found.text, at_ms=at_ms)
    assert (cause, at_ms) == (Sticky(1, found), 999_000)
    assert again.known(name)
    assert list(again.untold(state, {name})) == []


def test_what_the_authority_ordered_is_not_told_back_to_it(tmp_path: Path) -> None:
    first = Causes(Latch(tmp_path), lambda _: None)
    first.recalled(INSTANCE, State(Rules()))
    first.latch(Sticky(1, first.ordered(Cause("c-" + "1" * 32, "order", "odd", 5, 0), NOW)), NOW)
    again = Causes(Latch(tmp_path), lambda _: None)
    assert list(again.untold(again.recalled(INSTANCE, State(Rules())), ())) == []
