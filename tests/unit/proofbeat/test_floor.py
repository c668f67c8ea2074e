"""`proofbeat demo --policy`: which policy that is, whom it has to be for, and what the demo does otherwise under it."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation.calls import NAMES
from attestation.errors import InvalidConfiguration, InvalidInput
from policies.model.policy import Recovery
from proofbeat.baseline import BASELINE
from proofbeat.demo import floor
from proofbeat.demo.layout import Terms

STRICTER = """\
kind: AttestationPolicy
metadata: {name: mine, namespace: proofbeat-system}
spec: {interval: 500ms, deadman: 1s, freshness: 10s, recovery: {drift: replace}}
"""


def written(folder: Path, text: str) -> str:
    file = folder / "mine.yaml"
    file.write_text(text)
    return str(file)


def test_without_a_policy_the_demos_own_watches_what_its_acts_are_seen_by() -> None:
    own = floor.terms(None, None)
    assert own == Terms(envoy_attested=True, stated=own.stated, calls=BASELINE)
    assert own.stated["egress"]["allowed"] == []


def test_the_demos_baseline_names_calls_and_none_that_an_act_makes() -> None:
    calls = {name for each in BASELINE.values() for name in each}
    assert calls <= NAMES
    assert not calls & {"personality", "io_uring_setup", "io_uring_enter", "ptrace", "process_vm_writev"}


def test_a_preset_is_looser_than_the_demos_own_times_so_that_these_stay() -> None:
    own, under = floor.terms(None, None), floor.terms("payments", None)
    assert (under.interval, under.freshness, under.deadman) == (own.interval, own.freshness, own.deadman)
    assert under.floor is not None
    assert under.floor.name == "payments"


@pytest.mark.parametrize(("name", "delivery"), [("baseline", "sds"), ("hipaa", "sds"), ("payments", "xds")])
def test_what_is_delivered_is_what_the_policy_can_be_met_with(name: str, delivery: str) -> None:
    assert floor.terms(name, None).delivery == delivery


def test_whoever_says_what_is_delivered_gets_that_whether_it_can_be_met_or_not() -> None:
    assert floor.terms("payments", "sds").delivery == "sds"


def test_a_stricter_policy_of_yours_holds_for_the_demo_as_well(tmp_path: Path) -> None:
    under = floor.terms(written(tmp_path, STRICTER), None)
    assert (under.interval, under.freshness, under.deadman) == (0.5, 10.0, 1.0)
    assert (under.recovery.drift, under.recovery.tamper) == (Recovery.REPLACE, Recovery.REPLACE)
    assert under.floor is not None
    assert under.floor.text == STRICTER


def test_what_is_neither_a_preset_nor_a_file_is_refused_with_the_presets() -> None:
    with pytest.raises(InvalidInput, match=r"neither a preset nor a file.*baseline, hardened, hipaa, payments"):
        floor.terms("paymets", None)


@pytest.mark.parametrize(
    "metadata", ["{name: mine, namespace: shop}", "{name: mine}\nspec: {selector: {registrations: [web]}}\n#"]
)
def test_a_policy_that_rules_only_a_part_of_the_demo_or_nothing_is_refused(metadata: str, tmp_path: Path) -> None:
    file = written(tmp_path, f"kind: AttestationPolicy\nmetadata: {metadata}\n")
    with pytest.raises(InvalidInput, match=r"no policy in it is for the demo's (web|db).*proofbeat-system"):
        floor.terms(file, None)


def test_registrations_and_references_are_the_demos_own(tmp_path: Path) -> None:
    file = written(tmp_path, f"{STRICTER}---\nkind: ReferenceValues\nmetadata: {{name: web}}\n")
    with pytest.raises(InvalidInput, match="more in it than policies"):
        floor.terms(file, None)


def test_a_mistake_in_it_is_told_with_its_line_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"mine.yaml:3:8.*interval"):
        floor.terms(written(tmp_path, STRICTER.replace("interval", "intervall")), None)
