"""`bench appraise` and `bench merge`: that what they measure is what they say, and what their reports compare."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policies.appraise.appraise import appraise
from policies.appraise.reasons import Verdict
from policies.model.load import PolicySet
from policies.model.policy import AttestationPolicy
from proofbeat.bench import merge, peers
from proofbeat.bench.appraise import workload
from proofbeat.bench.appraise.run import OURS, PEER, Ours, report

DECISION = Path(__file__).parents[3] / "tools" / "peers" / "opa" / "decision.rego"


@pytest.fixture(scope="module")
def ours() -> Ours:
    return Ours()


def kinds(verdict: Verdict) -> list[str]:
    return [str(each.kind) for each in verdict.reasons]


def test_the_peer_has_all_our_rules_under_the_same_names() -> None:
    assert len(workload.RULES) == 20
    assert sorted(re.findall(r"^holds\.(\w+) if", DECISION.read_text(), re.MULTILINE)) == sorted(workload.RULES)


def test_a_workload_as_it_is_referenced_is_affirmed_by_all_rules(ours: Ours) -> None:
    one = workload.claimed(workload.entries())
    assert kinds(appraise(one.claims, one.bodies, ours.ruling.governing)) == []


def test_each_verdict_but_the_cached_is_made_anew_and_comes_to_the_same(ours: Ours) -> None:
    one = ours.another()
    compared = ours.judged(one)
    assert ours.judged(one) is compared
    assert kinds(compared) == ["file-modified"]
    assert appraise(one.claims, one.bodies, ours.ruling.governing) == compared
    assert ours.judged(ours.another()) is not compared


def test_the_peer_is_given_what_is_claimed_and_what_governs(ours: Ours) -> None:
    one = ours.another()
    given, data = workload.given(one, ours.ruling), workload.data(ours.ruling)
    assert len(given["files"]) == workload.FILES + workload.FOLDERS
    assert (given["summary"]["files"]["count"], given["layers"]["files"]["age"]) == (workload.FILES, 40)
    assert data["policy"]["rules"] == sorted(workload.RULES)
    path = next(path for path, each in given["files"].items() if each["kind"] == "f")
    assert set(data["references"]["files"][path]) == {"accepted", "digests", "mode"}


def test_the_report_holds_both_budgets_against_the_median_and_names_a_missing_peer() -> None:
    taken = {name: [1.0, 2.0, 9.0] for name in OURS}
    found = report(taken)
    assert [(each.measured, each.holds) for each in found.budgets] == [(2.0, False), (2.0, True)]
    assert peers.MAKE in str(found.plain()["peers"][PEER]["missing"])
    beside = report({**taken, "decided": [80.0]}).plain()["peers"][PEER]
    assert beside["decided"]["p50"] == 80.0


def test_a_thousand_policies_rule_ten_thousand_workloads() -> None:
    documents = list(merge.documents())
    assert sum(isinstance(each, AttestationPolicy) for each, _ in documents) == merge.POLICIES == 1000
    found = PolicySet(documents)
    assert (len(found.governing), len(found.unruled)) == (merge.WORKLOADS, 0)
    assert all(len(each.applying) >= 2 + merge.FLOOR for each in found.governing.values())
