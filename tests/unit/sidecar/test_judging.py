"""Facts, and the policy that they are held against: the first one may come later than they."""

from __future__ import annotations

import pytest

from attestation.facts import CollectorFact, CollectorState, Fact, FileChange, FileFact
from attestation.violation import Violation
from policies.model.inheritance import effective
from policies.model.policy import PolicySpec
from sidecar.governing import Governed
from sidecar.judging import MOST_EARLY, Judging
from tests.unit.policies.world import BAD, GOOD, MAIN, PAGE, POLICY, REFERENCES, REGISTRATION

KNOWN = effective(REFERENCES)
OFF = POLICY.model_copy(update={"spec": PolicySpec.model_validate({"layers": {"files": {"demand": "off"}}})})


class Heard:
    """What judging came to, in order; empty for what is harmless."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.overrun = 0
        self.judging = Judging(
            violated=self._violated,
            harmless=lambda: self.kinds.append(""),
            undecided=lambda: self.kinds.append("undecided"),
            too_many=self._too_many,
        )

    def _violated(self, violation: Violation) -> None:
        self.kinds.append(violation.kind)

    def _too_many(self) -> None:
        self.overrun += 1


def changed(path: str, digest: str) -> Fact:
    return FileFact(1.0, path, FileChange.MODIFIED, digest, 0o644, 0, 0)


DEAD = CollectorFact(1.0, "files-watch", CollectorState.DEAD)


def test_each_fact_is_a_contradiction_or_harmless_at_once() -> None:
    heard = Heard()
    heard.judging.rule(Governed(1, POLICY, KNOWN, REGISTRATION))
    for fact in (changed(MAIN, BAD), changed(MAIN, GOOD[MAIN])):
        heard.judging.saw(fact)
    assert heard.kinds == ["file-modified", ""]


def test_what_was_seen_before_the_first_policy_is_judged_by_it_in_order_and_once() -> None:
    heard = Heard()
    for fact in (changed(PAGE, GOOD[PAGE]), changed(MAIN, BAD)):
        heard.judging.saw(fact)
    heard.judging.rule(Governed(1, POLICY, KNOWN, REGISTRATION))
    assert heard.kinds == [], "not before all else goes by the policy"
    for _ in range(2):
        heard.judging.catch_up()
    assert heard.kinds == ["", "file-modified"]


def test_a_newer_policy_is_what_facts_are_held_against() -> None:
    heard = Heard()
    heard.judging.rule(Governed(1, POLICY, KNOWN, REGISTRATION))
    heard.judging.rule(Governed(2, OFF, KNOWN, REGISTRATION))
    heard.judging.saw(changed(MAIN, BAD))
    assert heard.kinds == [""]


@pytest.mark.parametrize(("facts", "overrun"), [(MOST_EARLY, 0), (MOST_EARLY + 1, 1)])
def test_facts_that_come_without_end_before_the_first_policy_are_told_of(facts: int, overrun: int) -> None:
    heard = Heard()
    for _ in range(facts):
        heard.judging.saw(DEAD)
    assert heard.overrun == overrun
