"""What the verifier makes of claims, and that the sidecar makes the same of the facts."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from attestation import manifest
from attestation.coverage import CollectorCoverage, Coverage, Grade, Guarantee, Isolation, Mechanism, Profile
from attestation.facts import (
    Actor,
    CollectorFact,
    CollectorState,
    ExecutionFact,
    FileChange,
    FileFact,
    MountFact,
    ProcessAspect,
    ProcessFact,
    Sighting,
)
from attestation.layers import Layer
from attestation.manifest import DIRECTORY, LINK, NO_DIGEST, Entry, capabilities_of
from attestation.processes import ProcessKind
from attestation.trust import NO_CLAIM, Tier
from attestation.violation import ViolationClass
from policies.appraise.appraise import appraise
from policies.appraise.files import Files, check_files
from policies.appraise.reasons import Verdict
from policies.appraise.violation import violates
from policies.model.inheritance import effective
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import ReferenceValues
from tests.unit.policies.world import (
    BAD,
    GOOD,
    MAIN,
    PAGE,
    POLICY,
    PYTHON,
    REFERENCES,
    claimed,
    coverage,
    entry,
    governing,
    process,
)

BOTH = (entry(MAIN), entry(PAGE))


def judged(
    entries: tuple[Entry, ...] = BOTH,
    kinds: tuple[ProcessKind, ...] = (process(),),
    *,
    age_ms: int = 10,
    watchers: Coverage | None = None,
    policy: AttestationPolicy = POLICY,
) -> Verdict:
    claims, bodies = claimed(entries, kinds, age_ms=age_ms, watchers=watchers)
    return appraise(claims, bodies, governing(policy))


def ruled(**changes: object) -> AttestationPolicy:
    spec = POLICY.spec.model_dump(by_alias=True, mode="json") | changes
    return POLICY.model_copy(update={"spec": PolicySpec.model_validate(spec)})


def test_a_workload_as_referenced_is_affirmed_without_a_reason_against_it() -> None:
    verdict = judged()
    assert verdict.tier is Tier.AFFIRMING
    assert verdict.reasons == ()


FILE_CASES = {
    "file-modified": (entry(MAIN, BAD), entry(PAGE)),
    "file-unreferenced": (*BOTH, entry("/srv/app/extra.py")),
    "file-missing": (entry(MAIN),),
    "file-attributes": (entry(MAIN, mode=0o4755), entry(PAGE)),
}


@pytest.mark.parametrize("kind", FILE_CASES)
def test_a_file_that_is_not_as_referenced_is_contraindicated_as_drift(kind: str) -> None:
    verdict = judged(FILE_CASES[kind])
    assert verdict.tier is Tier.CONTRAINDICATED
    assert [reason.kind for reason in verdict.reasons] == [kind]
    assert not verdict.tamper


def test_a_folder_put_in_the_place_of_a_file_leaves_the_file_missing() -> None:
    verdict = judged((entry(MAIN, NO_DIGEST, kind=DIRECTORY), entry(PAGE)))
    assert [(reason.kind, reason.subject) for reason in verdict.reasons] == [("file-missing", MAIN)]


def test_a_link_put_in_the_place_of_a_file_is_judged_by_its_target_text() -> None:
    assert judged((entry(MAIN, BAD, kind=LINK), entry(PAGE))).tier is Tier.CONTRAINDICATED


@pytest.mark.parametrize("path", ["/srv/app/server.log", "/srv/app/cache/deep/thing", "/etc/passwd"])
def test_volatile_paths_and_paths_outside_the_policy_are_not_judged(path: str) -> None:
    assert judged((*BOTH, entry(path, BAD))).tier is Tier.AFFIRMING


@pytest.mark.parametrize(
    "kind",
    [process("/tmp/payload"), process(PYTHON, BAD), process(PYTHON, deleted=True)],
    ids=["foreign", "modified", "deleted"],
)
def test_a_process_that_no_reference_allows_is_tamper(kind: ProcessKind) -> None:
    verdict = judged(kinds=(process(), kind))
    assert verdict.tier is Tier.CONTRAINDICATED
    assert verdict.tamper


def test_capabilities_beyond_the_policys_most_are_tamper() -> None:
    policy = ruled(processes={"mostCapabilities": "ff"})
    assert judged(kinds=(process(caps="0f"),), policy=policy).tier is Tier.AFFIRMING
    assert judged(kinds=(process(caps="1ff"),), policy=policy).tamper


def test_no_number_of_drifts_keeps_a_tamper_from_being_told() -> None:
    policy = ruled(onViolation={"execution-foreign": "drift"})
    foreign = tuple(process(f"/tmp/{number}") for number in range(40))
    assert not judged(kinds=foreign, policy=policy).tamper
    assert judged(kinds=(*foreign, process(PYTHON, BAD)), policy=policy).tamper


def test_an_old_measurement_is_a_warning_and_opens_nothing() -> None:
    assert judged(age_ms=61_000).tier is Tier.WARNING


def test_which_tiers_open_traffic_policy_says() -> None:
    assert [tier for tier in Tier if ruled().spec.opens(tier)] == [Tier.AFFIRMING]
    assert [tier for tier in Tier if ruled(warnings="serve").spec.opens(tier)] == [Tier.AFFIRMING, Tier.WARNING]


BEST_EFFORT = {layer: {"demand": "best-effort"} for layer in ("files", "processes", "proxy", "syscalls")}


@pytest.mark.parametrize(
    ("shown", "kinds"),
    [
        ({"age_ms": 61_000}, {"layer-old"}),
        ({"watchers": coverage(running=False)}, {"collector-dead"}),
        ({}, set()),
    ],
    ids=["late", "unwatched", "measured"],
)
def test_what_is_missing_or_late_of_a_best_effort_layer_is_told_and_closes_nothing(
    shown: dict[str, Any], kinds: set[str]
) -> None:
    stated = {"collector-dead": "tamper"}
    verdict = judged(policy=ruled(layers=BEST_EFFORT, onViolation=stated), **shown)
    assert (verdict.tier, verdict.tamper) == (Tier.AFFIRMING, False)
    assert {each.kind for each in verdict.reasons} == kinds | {"layer-absent"}
    assert (verdict.vector.file_system == NO_CLAIM) is bool(kinds)


def test_what_a_best_effort_layer_shows_has_to_agree_all_the_same() -> None:
    policy = ruled(layers=BEST_EFFORT, warnings="serve")
    assert judged((entry(MAIN, BAD), entry(PAGE)), policy=policy, age_ms=61_000).tier is Tier.CONTRAINDICATED


def test_a_required_layer_whose_collector_is_dead_gives_no_tier_at_all() -> None:
    assert judged(watchers=coverage(running=False)).tier is Tier.NONE


def test_a_policy_that_requires_a_layer_nobody_measures_cannot_be_met() -> None:
    policy = ruled(layers={"files": {}, "processes": {}, "syscalls": {}})
    verdict = judged(policy=policy)
    assert verdict.tier is Tier.NONE
    assert [reason.subject for reason in verdict.reasons] == ["layer syscalls"]


def test_watchers_weaker_than_the_policy_asks_are_a_warning() -> None:
    policy = ruled(coverage={"grade": "closed-by-guardian"})
    assert judged(policy=policy).tier is Tier.AFFIRMING
    assert judged(policy=policy, watchers=coverage(grade=Grade.BOUNDED_NEW_CONNECTIONS_ONLY)).tier is Tier.WARNING


def watched(files: Mechanism, executions: Mechanism, *, running: bool = True) -> Coverage:
    return replace(
        coverage(),
        collectors=(
            CollectorCoverage("files", Layer.FILES, files, 5.0, running=True),
            CollectorCoverage("processes.executions", Layer.PROCESSES, executions, 5.0, running),
        ),
    )


@pytest.mark.parametrize(
    ("files", "executions", "profile"),
    [
        (Mechanism.FANOTIFY, Mechanism.BPF, Profile.FULL),
        (Mechanism.FANOTIFY, Mechanism.PROC_CONNECTOR, Profile.FULL),
        (Mechanism.FANOTIFY, Mechanism.FANOTIFY, Profile.CONTAINED),
        (Mechanism.FANOTIFY, Mechanism.POLL, Profile.RESTRICTED),
        (Mechanism.INOTIFY, Mechanism.PROC_CONNECTOR, Profile.RESTRICTED),
        (Mechanism.INOTIFY, Mechanism.BPF, Profile.RESTRICTED),
        (Mechanism.INOTIFY, Mechanism.POLL, Profile.RESTRICTED),
    ],
)
def test_a_profile_follows_from_how_files_and_executions_are_watched_and_a_policy_may_ask_for_one(
    files: Mechanism, executions: Mechanism, profile: Profile
) -> None:
    watchers = watched(files, executions)
    assert watchers.profile is profile
    for asked in Profile:
        found = judged(policy=ruled(coverage={"profile": asked}), watchers=watchers).reasons
        told = [(each.subject, each.found) for each in found if each.kind == "coverage-weak"]
        weaker = list(Profile).index(profile) > list(Profile).index(asked)
        assert told == ([("coverage.profile", profile)] if weaker else [])


def test_a_collector_that_stands_watches_nothing() -> None:
    assert watched(Mechanism.FANOTIFY, Mechanism.PROC_CONNECTOR, running=False).profile is Profile.RESTRICTED


EVERY = Isolation(
    non_dumpable=True,
    distinct_user=True,
    workload_can_trace=False,
    shared_pid_namespace=False,
    workload_can_become_us=False,
    envoy_non_dumpable=True,
    envoy_distinct_user=True,
    workload_can_trace_envoy=False,
)


@pytest.mark.parametrize("field", [each.name for each in fields(Isolation)])
def test_each_guarantee_that_policy_asks_for_must_hold(field: str) -> None:
    policy = ruled(coverage={"isolation": [str(each) for each in Guarantee]})
    isolated = replace(coverage(), isolation=EVERY)
    assert judged(policy=policy, watchers=isolated).tier is Tier.AFFIRMING
    exposed = replace(EVERY, **{field: not getattr(EVERY, field)})
    verdict = judged(policy=policy, watchers=replace(isolated, isolation=exposed))
    assert verdict.tier is Tier.WARNING
    (reason,) = verdict.reasons
    (missing,) = set(Guarantee) - exposed.guarantees
    assert missing in reason.text
    assert f" {missing}" not in reason.allow.replace("[", " ")
    assert judged(watchers=replace(isolated, isolation=Isolation())).tier is Tier.AFFIRMING, "nothing was asked for"


@pytest.mark.parametrize("kind", ["file-modified", "file-unreferenced", "file-attributes"])
def test_the_sidecar_sees_in_a_fact_what_the_verifier_sees_in_the_layer(kind: str) -> None:
    changed = next(each for each in FILE_CASES[kind] if each not in BOTH)
    fact = FileFact(1.0, changed.path, FileChange.MODIFIED, changed.digest, changed.mode, actor=Actor(9, "/bin/sh"))
    found = violates(fact, POLICY, REFERENCES)
    assert found is not None
    assert (found.kind, found.violation_class) == (kind, ViolationClass.DRIFT)
    assert "/bin/sh (9)" in found.text


NET_RAW = "0100000200200000000000000000000000000000"


def with_capabilities(value: str) -> ReferenceValues:
    spec = REFERENCES.spec
    known = {**spec.files, MAIN: spec.files[MAIN].model_copy(update={"capabilities": value})}
    return REFERENCES.model_copy(update={"spec": spec.model_copy(update={"files": known})})


@pytest.mark.parametrize(("referenced", "found", "is_one"), [("", NET_RAW, True), (NET_RAW, NET_RAW, False)])
def test_capabilities_that_a_file_has_are_referenced_or_found_by_sidecar_and_verifier(
    referenced: str, found: str, is_one: bool
) -> None:
    references = with_capabilities(referenced)
    fact = FileFact(1.0, MAIN, FileChange.ATTRIBUTES, GOOD[MAIN], 0o644, capabilities=found)
    violation = violates(fact, POLICY, references)
    seen = check_files(Files(manifest.pack([*BOTH, capabilities_of(MAIN, found)])), POLICY, effective(references))
    assert [each.kind for each in seen] == (["file-attributes"] if is_one else [])
    assert (violation.kind if violation else "") == ("file-attributes" if is_one else "")
    before = Files(manifest.pack(BOTH))
    assert (
        check_files(Files(manifest.pack([*BOTH, capabilities_of(MAIN, found)]), before), POLICY, effective(references))
        == seen
    )


def immutable(**files: Any) -> AttestationPolicy:
    rules = POLICY.spec.files.model_copy(update={"immutable": True, **files})
    return POLICY.model_copy(update={"spec": POLICY.spec.model_copy(update={"files": rules})})


def test_a_write_is_a_violation_before_it_is_read_where_code_is_immutable_and_only_there() -> None:
    written = FileFact(1.0, MAIN, FileChange.WRITTEN, actor=Actor(9, "/bin/sh"))
    found = violates(written, immutable(), REFERENCES)
    assert found is not None
    assert (found.kind, found.subject, found.violation_class) == ("file-written", MAIN, ViolationClass.DRIFT)
    assert violates(written, POLICY, REFERENCES) is None
    assert violates(written, immutable(configuration=(MAIN,)), REFERENCES) is None
    assert violates(replace(written, path="/srv/else"), immutable(), REFERENCES) is None


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/", True),
        ("/srv", True),
        ("/srv/app", True),
        (MAIN, True),
        ("", True),
        ("/srv/app/volatile", False),
        ("/srv/application", False),
        ("/mnt", False),
    ],
)
@pytest.mark.parametrize("mounted", [True, False])
def test_a_mount_is_a_violation_where_it_covers_what_is_measured(path: str, is_one: bool, mounted: bool) -> None:
    policy = immutable(volatile=("/srv/app/volatile/**",))
    found = violates(MountFact(1.0, path, mounted, "tmpfs"), policy, REFERENCES)
    assert (found is not None) is is_one
    if found is not None:
        assert (found.kind, found.subject, found.layer) == ("mount-changed", path, Layer.FILES)


def test_the_repair_of_a_file_is_no_violation() -> None:
    assert violates(FileFact(1.0, MAIN, FileChange.MODIFIED, GOOD[MAIN], 0o644), POLICY, REFERENCES) is None


def test_a_referenced_file_removed_is_a_violation_and_another_one_is_not() -> None:
    gone = violates(FileFact(1.0, MAIN, FileChange.REMOVED), POLICY, REFERENCES)
    assert gone is not None
    assert gone.kind == "file-missing"
    assert violates(FileFact(1.0, "/srv/app/extra", FileChange.REMOVED), POLICY, REFERENCES) is None


def test_an_unreadable_file_is_a_violation() -> None:
    found = violates(FileFact(1.0, MAIN, FileChange.UNREADABLE), POLICY, REFERENCES)
    assert found is not None
    assert found.kind == "file-unreadable"


@pytest.mark.parametrize(("path", "digest"), [("/tmp/x", BAD), (PYTHON, BAD), (PYTHON, "")])
def test_an_execution_that_no_reference_allows_is_tamper(path: str, digest: str) -> None:
    found = violates(ExecutionFact(1.0, path, digest, Actor(9), Sighting.EVENT), POLICY, REFERENCES)
    assert found is not None
    assert found.tamper


def test_a_referenced_execution_is_no_violation() -> None:
    fact = ExecutionFact(1.0, PYTHON, GOOD[PYTHON], Actor(9), Sighting.EVENT)
    assert violates(fact, POLICY, REFERENCES) is None


@pytest.mark.parametrize(
    ("aspect", "before", "after", "bad"),
    [
        (ProcessAspect.CAPABILITIES, "ff", "0f", False),
        (ProcessAspect.CAPABILITIES, "0f", "ff", True),
        (ProcessAspect.USER, "0", "1000", False),
        (ProcessAspect.USER, "1000", "0", True),
        (ProcessAspect.TRACER, "0", "77", True),
        (ProcessAspect.TRACER, "77", "0", False),
        (ProcessAspect.NAMESPACES, "mnt:1", "mnt:2", True),
        (ProcessAspect.SECCOMP, "0", "2", False),
        (ProcessAspect.SCOPE, "inside", "outside", True),
        (ProcessAspect.UNMEASURED, "no", "yes: it is hidden from us", True),
    ],
)
def test_gaining_privileges_is_tamper_and_dropping_them_is_not(
    aspect: ProcessAspect, before: str, after: str, bad: bool
) -> None:
    found = violates(ProcessFact(1.0, Actor(9, PYTHON), aspect, before, after), POLICY, REFERENCES)
    assert (found is not None) is bad


@pytest.mark.parametrize("state", [CollectorState.DEAD, CollectorState.OVERFLOWED])
def test_a_required_collector_that_lost_anything_is_drift(state: CollectorState) -> None:
    found = violates(CollectorFact(1.0, "files-fanotify", state), POLICY, REFERENCES)
    assert found is not None
    assert found.layer is Layer.FILES
    assert not found.tamper


def test_a_collector_of_a_layer_that_policy_leaves_off_violates_nothing() -> None:
    policy = ruled(layers={"files": {"demand": "off"}})
    assert violates(CollectorFact(1.0, "files-fanotify", CollectorState.DEAD), policy, REFERENCES) is None
