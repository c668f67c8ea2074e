"""What policies make of alerts: the gravest of what any of them says; and of detectors that are not heard."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.coverage import DETECTORS, CollectorCoverage, Mechanism
from attestation.detectors.alerts import Alert, Detector, Priority
from attestation.errors import InvalidConfiguration
from attestation.facts import Actor, AlertFact, CollectorFact, CollectorState
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.trust import Tier
from attestation.violation import Violation, ViolationClass
from policies.appraise.appraise import appraise
from policies.appraise.violation import violates
from policies.model import dialect
from policies.model.merge import Applying, Rank, merge
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from tests.unit.policies.world import POLICY, REFERENCES, claimed, coverage, governing

SHELL = Alert(Detector.FALCO, "Terminal shell in container", "A shell", 1, priority=Priority.NOTICE, tags=("shell",))
FILES = Alert(Detector.TETRAGON, "sensitive-files", "read /etc/shadow", 1, executable="/usr/bin/curl")


def ruled(*alerts: dict[str, Any], **rules: Any) -> AttestationPolicy:
    spec = {**POLICY.spec.model_dump(by_alias=True, exclude_unset=True), "detectors": {"alerts": alerts, **rules}}
    return AttestationPolicy(metadata=POLICY.metadata, spec=PolicySpec.model_validate(spec))


def came_to(alert: Alert, policy: AttestationPolicy, *, named: bool = True) -> Violation | None:
    return violates(AlertFact(5.0, alert, named, Actor(7, "/bin/sh")), policy, REFERENCES)


def entry(detector: str = "falco", stated: str = "tamper", **rest: Any) -> dict[str, Any]:
    return {"detector": detector, "class": stated, **rest}


@pytest.mark.parametrize(
    ("rule", "violated"),
    [
        (entry(), True),
        (entry("tetragon"), False),
        (entry(rules=["Terminal shell*"]), True),
        (entry(rules=["terminal*"]), False),
        (entry(rules=["Other", "*container"]), True),
        (entry(rules=["*"], without=["Terminal*"]), False),
        (entry(priority="debug"), True),
        (entry(priority="notice"), True),
        (entry(priority="warning"), False),
        (entry(tags=["other"]), False),
        (entry(tags=["other", "shell"]), True),
        (entry(stated="observe"), False),
    ],
)
def test_an_alert_is_what_an_entry_that_matches_all_of_it_says(rule: dict[str, Any], violated: bool) -> None:
    found = came_to(SHELL, ruled(rule))
    assert (found is not None) is violated


def test_a_violation_names_detector_rule_priority_and_what_it_said() -> None:
    found = came_to(SHELL, ruled(entry()))
    assert found is not None
    assert (found.kind, found.violation_class, found.layer) == (
        Signal.DETECTOR_ALERT,
        ViolationClass.TAMPER,
        Layer.ATTESTER,
    )
    assert found.text == "falco: Terminal shell in container (notice): A shell"
    assert found.rule == "AttestationPolicy/hardened: spec.detectors.alerts"
    assert (found.process, found.at) == (Actor(7, "/bin/sh"), 5.0)


def test_of_several_entries_the_gravest_holds_and_what_none_is_for_is_only_observed() -> None:
    policy = ruled(entry(stated="drift"), entry(stated="tamper", rules=["Terminal*"]), entry(stated="observe"))
    grave, other = came_to(SHELL, policy), came_to(replace(SHELL, rule="Other"), policy)
    assert grave is not None and other is not None
    assert (grave.violation_class, other.violation_class) == (ViolationClass.TAMPER, ViolationClass.DRIFT)
    assert came_to(FILES, policy) is None
    assert came_to(SHELL, POLICY) is None


def test_an_alert_without_the_priority_that_its_detector_has_is_as_grave_as_any() -> None:
    assert came_to(replace(SHELL, priority=None), ruled(entry(priority="emergency"))) is not None


@pytest.mark.parametrize(("unnamed", "violated"), [("observe", False), ("ours", True)])
def test_an_alert_that_names_nobody_is_ours_where_policy_says_so(unnamed: str, violated: bool) -> None:
    found = came_to(SHELL, ruled(entry(), unnamed=unnamed), named=False)
    assert (found is not None) is violated
    assert found is None or "names nobody" in found.text


@pytest.mark.parametrize("alert", [SHELL, FILES, replace(SHELL, rule='odd [rule]* of "mine"?')])
def test_what_would_allow_an_alert_allows_it_and_no_other(alert: Alert) -> None:
    entries = (entry(priority="notice"), entry("tetragon", "drift", tags=[]), entry(rules=["Never"], without=["x"]))
    policy = ruled(*entries)
    found = came_to(alert, policy)
    assert found is not None
    ((value, _),) = dialect.parse(found.allow, "allowance")
    allowing = ruled(*value["spec"]["detectors"]["alerts"])
    assert came_to(alert, allowing) is None
    assert came_to(replace(alert, rule=f"{alert.rule} too"), allowing) is not None


def read(text: str) -> AttestationPolicy:
    ((value, node),) = dialect.parse(text, "web.yaml")
    return dialect.validate(value, node, AttestationPolicy, "web.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("alerts: [{detector: falco}]", "class"),
        ("alerts: [{detector: snort, class: drift}]", "falco"),
        ("alerts: [{detector: tetragon, priority: notice, class: drift}]", "states no priority"),
        ("alerts: [{detector: falco, rules: [], class: drift}]", "rules"),
        ("sources: {snort: {}}", "snort"),
        ("sources: {falco: {silence: 10ms}}", "silence"),
    ],
)
def test_what_says_nothing_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        read(f"kind: AttestationPolicy\nmetadata: {{name: web}}\nspec:\n  detectors: {{{text}}}\n")


# Merged.

ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"detector": st.sampled_from(["falco", "tetragon"]), "class": st.sampled_from(["observe", "drift", "tamper"])},
        optional={
            "rules": st.sampled_from([["*"], ["Terminal*"], ["sensitive-*"]]),
            "without": st.sampled_from([["Terminal*"], ["*"]]),
        },
    ),
    max_size=3,
)
RANKS = {None: 0, ViolationClass.DRIFT: 1, ViolationClass.TAMPER: 2}


@given(st.lists(ENTRIES, min_size=1, max_size=3))
def test_another_policy_only_ever_makes_an_alert_graver(stated: list[list[dict[str, Any]]]) -> None:
    policies = [
        Applying(
            AttestationPolicy(
                metadata=Metadata(name=f"p{number}"),
                spec=PolicySpec.model_validate({"detectors": {"alerts": alerts}}),
            ),
            Rank.NAMESPACE,
        )
        for number, alerts in enumerate(stated)
    ]
    merged = merge(policies).policy.spec.detectors
    for alert in (SHELL, FILES):
        alone = [each.policy.spec.detectors.class_of(alert) for each in policies]
        assert RANKS[merged.class_of(alert)] == max(RANKS[each] for each in alone)


def test_a_detector_that_one_policy_requires_is_required_with_the_least_silence() -> None:
    texts: tuple[dict[str, Any], ...] = (
        {"falco": {}},
        {"falco": {"demand": "best-effort", "silence": "1m"}},
        {"falco": {"silence": "5m"}},
    )
    policies = [
        Applying(
            AttestationPolicy(
                metadata=Metadata(name=f"p{number}"), spec=PolicySpec.model_validate({"detectors": {"sources": each}})
            ),
            Rank.WORKLOAD,
        )
        for number, each in enumerate(texts)
    ]
    rules = merge(policies).policy.spec.detectors
    assert rules.requires(Detector.FALCO) and not rules.requires(Detector.TETRAGON)
    assert rules.sources[Detector.FALCO].silence == 60.0


# Detectors that are not heard.

REQUIRING = ruled(sources={"falco": {}, "tetragon": {"demand": "best-effort"}})


def heard(name: str, *, running: bool = True) -> CollectorCoverage:
    return CollectorCoverage(f"{DETECTORS}{name}", Layer.ATTESTER, Mechanism.DETECTOR, 0.0, running, 0, "")


@pytest.mark.parametrize("state", [each for each in CollectorState if each is not CollectorState.RUNNING])
def test_a_required_detector_that_is_not_heard_is_a_violation_and_any_other_is_not(state: CollectorState) -> None:
    found = violates(CollectorFact(1.0, f"{DETECTORS}falco", state, "why"), REQUIRING, REFERENCES)
    assert found is not None
    assert (found.kind, found.violation_class) == (Signal.DETECTOR_SILENT, ViolationClass.DRIFT)
    assert "why" in found.text
    for name, policy in (("tetragon", REQUIRING), ("falco", POLICY)):
        assert violates(CollectorFact(1.0, f"{DETECTORS}{name}", state), policy, REFERENCES) is None
    assert violates(CollectorFact(1.0, f"{DETECTORS}falco", CollectorState.RUNNING), REQUIRING, REFERENCES) is None


@pytest.mark.parametrize(
    ("collectors", "tier"),
    [
        ((), Tier.WARNING),
        ((heard("falco", running=False),), Tier.WARNING),
        ((heard("tetragon"),), Tier.WARNING),
        ((heard("falco"),), Tier.AFFIRMING),
        ((heard("falco"), heard("tetragon", running=False)), Tier.AFFIRMING),
    ],
)
def test_nothing_is_affirmed_while_a_required_detector_is_not_heard(
    collectors: tuple[CollectorCoverage, ...], tier: Tier
) -> None:
    known = coverage()
    claims, bodies = claimed(watchers=replace(known, collectors=(*known.collectors, *collectors)))
    verdict = appraise(claims, bodies, governing(REQUIRING))
    assert verdict.tier is tier
    assert {each.kind for each in verdict.reasons} == (set() if tier is Tier.AFFIRMING else {Signal.DETECTOR_SILENT})


def test_a_detector_that_does_not_run_is_no_collector_of_a_layer() -> None:
    known = replace(coverage(), collectors=(*coverage().collectors, heard("falco", running=False)))
    assert Layer.ATTESTER not in known.weakest
