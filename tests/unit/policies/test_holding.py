"""`maxUnavailable`: what a policy may say, which drift may be held, and that both sides name it alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from attestation.drift import MOST_DRIFTS, Drift
from attestation.facts import Actor, Fact, FileChange, FileFact
from attestation.manifest import Entry
from attestation.signals import Signal
from attestation.trust import Tier
from attestation.violation import ViolationClass
from policies.appraise.appraise import appraise
from policies.appraise.expiry import in_time
from policies.appraise.holding import as_held, drift_of, drifts_of, holdable
from policies.appraise.violation import violates
from policies.model.merge import Applying, Rank, merge
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import ReferenceValues
from tests.unit.policies.world import BAD, MAIN, PAGE, POLICY, REFERENCES, claimed, coverage, entry, governing, process


def spec(**said: Any) -> PolicySpec:
    return PolicySpec.model_validate({"mode": "enforce", **said})


def judged(*entries: Entry, policy: AttestationPolicy = POLICY, **more: Any) -> frozenset[Drift] | None:
    return drifts_of(appraise(*claimed(entries, **more), governing(policy)))


# --- what a policy may say ---


@pytest.mark.parametrize("share", ["1%", "25%", "100%"])
def test_a_share_is_a_whole_number_of_percent_and_is_written_as_it_is_read(share: str) -> None:
    read = spec(maxUnavailable=share)
    assert f"{read.max_unavailable}%" == share
    assert PolicySpec.model_validate(read.model_dump(mode="json", by_alias=True)) == read


@pytest.mark.parametrize("share", ["0%", "101%", "050%", "12.5%", "-1%", "25", 25, "25 %", "25%\n", "٣%", None])
def test_anything_else_is_none(share: object) -> None:
    with pytest.raises(ValidationError, match="maxUnavailable"):
        spec(maxUnavailable=share)


def test_nothing_is_held_where_nobody_says_so_nor_where_nothing_is_enforced() -> None:
    assert not spec().holds and not spec(maxUnavailable="100%").holds
    assert spec(maxUnavailable="99%").holds
    assert not spec(mode="audit", maxUnavailable="25%").holds
    assert "maxUnavailable" not in spec().model_dump(by_alias=True), "so that an older sidecar reads such a policy"


def test_a_floor_of_all_forbids_holding_and_the_greater_share_prevails() -> None:
    def both(floor: str, below: str) -> int:
        of = {"floor": (floor, Rank.MESH), "web": (below, Rank.WORKLOAD)}
        written = (
            Applying(AttestationPolicy(metadata=Metadata(name=name), spec=spec(maxUnavailable=share)), rank)
            for name, (share, rank) in of.items()
        )
        return merge(tuple(written)).policy.spec.max_unavailable

    assert (both("100%", "25%"), both("25%", "100%"), both("10%", "30%")) == (100, 100, 30)


# --- which drift ---

CHANGED = {
    "modified": (FileFact(5.0, MAIN, FileChange.MODIFIED, BAD, 0o644, actor=Actor(9, "/bin/sh")), entry(MAIN, BAD)),
    "unreferenced": (FileFact(5.0, "/srv/app/x", FileChange.MODIFIED, BAD, 0o644), entry("/srv/app/x", BAD)),
    "rights": (FileFact(5.0, MAIN, FileChange.MODIFIED, entry(MAIN).digest, 0o600), entry(MAIN, mode=0o600)),
    "missing": (FileFact(5.0, MAIN, FileChange.REMOVED), None),
}


@pytest.mark.parametrize(("fact", "there"), CHANGED.values(), ids=CHANGED.keys())
def test_sidecar_and_authority_name_the_same_drift_alike_whoever_did_it(fact: Fact, there: Entry | None) -> None:
    violation = violates(fact, POLICY, REFERENCES)
    drift = drift_of(violation) if violation is not None else None
    assert drift is not None
    others = [entry(MAIN)] if there is not None and there.path != MAIN else []
    assert judged(entry(PAGE), *others, *([there] if there is not None else [])) == frozenset({drift})


def test_another_content_is_another_drift_down_to_the_last_digit() -> None:
    near = BAD[:-1] + "e"
    assert judged(entry(MAIN, BAD), entry(PAGE)) != judged(entry(MAIN, near), entry(PAGE))


def test_several_drifts_are_told_together_up_to_a_bound() -> None:
    several = [entry(f"/srv/app/{number}", BAD) for number in range(MOST_DRIFTS)]
    found = judged(entry(MAIN), entry(PAGE), *several)
    assert found is not None and len(found) == MOST_DRIFTS
    assert judged(entry(MAIN), entry(PAGE), *several, entry("/srv/app/more", BAD)) is None


def test_nothing_is_held_where_anything_but_such_drift_speaks_against_it() -> None:
    drifted = (entry(MAIN, BAD), entry(PAGE))
    assert judged(*drifted) is not None
    assert judged(*drifted, kinds=(process("/tmp/payload"),)) is None, "a tamper"
    assert judged(*drifted, age_ms=10**9) is None, "a measurement that is too old"
    assert judged(*drifted, watchers=coverage(running=False)) is None, "watchers that do not run"
    assert judged(entry(MAIN), entry(PAGE)) is None, "nothing at all"
    tampering = replace_spec(onViolation={"file-modified": "tamper"})
    assert judged(*drifted, policy=tampering) is None


def replace_spec(**said: Any) -> AttestationPolicy:
    written = POLICY.spec.model_dump(mode="json", by_alias=True)
    return POLICY.model_copy(update={"spec": PolicySpec.model_validate({**written, **said})})


def test_what_lapses_for_all_at_a_time_is_not_held() -> None:
    expired = REFERENCES.model_copy(update={"spec": REFERENCES.spec.model_copy(update={"expires": 5})})
    assert isinstance(expired, ReferenceValues)
    ruled = governing(references=expired)
    drifted = appraise(*claimed((entry(MAIN, BAD), entry(PAGE))), ruled)
    assert drifts_of(drifted) is not None
    assert drifts_of(in_time(drifted, ruled, 6.0)) is None


FILE = Drift("file-modified", "files", MAIN, BAD)


@pytest.mark.parametrize(
    "never",
    [
        replace(FILE, kind="collector-overflowed"),
        replace(FILE, kind="measurer-lost"),
        replace(FILE, kind="file-unreadable", found="it cannot be read as a file"),
        replace(FILE, kind="references-expired"),
        replace(FILE, kind="flapping"),
        replace(FILE, kind="contraindicated"),
        replace(FILE, kind="whatever"),
        replace(FILE, layer="proxy"),
        replace(FILE, layer="attester"),
        replace(FILE, subject=""),
        replace(FILE, subject="/srv/\n"),
        replace(FILE, subject="/" + "a" * 1000),
        replace(FILE, found=""),
        replace(FILE, found="0" * 64),
        replace(FILE, found="content sha256:ffff"),
        replace(FILE, kind="execution-foreign", layer="processes", found="it was executed"),
    ],
    ids=str,
)
def test_what_may_hide_a_tamper_or_has_no_exact_name_is_never_held(never: Drift) -> None:
    assert holdable(FILE, tamper=False)
    assert not holdable(FILE, tamper=True)
    assert not holdable(never, tamper=False)


def test_what_is_held_is_of_tier_warning_with_all_its_reasons_and_affirms_nothing() -> None:
    verdict = appraise(*claimed((entry(MAIN, BAD), entry(PAGE))), governing())
    held = as_held(verdict)
    assert (verdict.tier, held.tier) == (Tier.CONTRAINDICATED, Tier.WARNING)
    assert held.reasons == verdict.reasons
    assert {each.kind for each in held.reasons} == {Signal.FILE_MODIFIED}
    assert {each.finding_class for each in held.reasons} == {ViolationClass.DRIFT}


def test_a_drift_has_one_id_and_every_part_of_it_counts() -> None:
    others = {replace(FILE, **{name: "x"}).id for name in ("kind", "layer", "subject", "found")}
    assert len({FILE.id, *others}) == 5
    assert replace(FILE).id == FILE.id
