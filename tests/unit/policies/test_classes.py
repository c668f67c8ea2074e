"""Of what class a path is, and what that means for what is there and for what runs from there."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from attestation.channel import Scope, encode
from attestation.errors import InvalidConfiguration
from attestation.facts import Actor, ExecutionFact, FileChange, FileFact, Sighting
from attestation.manifest import DIRECTORY, LINK, NO_DIGEST, Entry
from attestation.violation import ViolationClass
from measurer.files.patterns import Volatile
from policies.appraise.appraise import appraise
from policies.appraise.projected import by_stable_names
from policies.appraise.reasons import Finding
from policies.appraise.violation import undecided, violates
from policies.model.classes import DATA, UNREAD, FileClass, class_of, unread
from policies.model.merge import Applying, Rank, merge
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, FileRules, PolicySpec
from policies.model.references import ReferenceSpec, ReferenceValues
from tests.unit.policies.world import BAD, GOOD, LOADER, MAIN, PAGE, PYTHON, claimed, entry, governing, process

NAMED = [each for each in FileClass if each is not FileClass.CODE]
PATTERNS = st.lists(st.sampled_from(["/srv/**", "/srv/a/**", "/srv/a/*", "*.x", "/srv/**/b/**", "b", "**"]), max_size=2)
PATHS = st.lists(st.sampled_from(["srv", "a", "b", "c.x", "..data"]), min_size=1, max_size=4).map(
    lambda names: "/" + "/".join(names)
)
BOUNDS: st.SearchStrategy[dict[str, list[str]]] = st.dictionaries(st.sampled_from(NAMED), PATTERNS, max_size=3)
FILES: st.SearchStrategy[dict[str, Any]] = st.builds(
    lambda lists, within: {**lists, "within": within}, BOUNDS, st.lists(BOUNDS, max_size=2)
)


def strictness(path: str, files: FileRules) -> int:
    return list(FileClass).index(class_of(path, files))


@given(FILES, BOUNDS, PATHS)
def test_a_bound_more_leaves_each_path_as_it_was_or_makes_it_stricter(
    files: dict[str, Any], bound: dict[str, list[str]], path: str
) -> None:
    before = FileRules.model_validate(files)
    after = FileRules.model_validate({**files, "within": [*files["within"], bound]})
    assert strictness(path, after) >= strictness(path, before)


def policy(name: str, files: dict[str, Any]) -> AttestationPolicy:
    return AttestationPolicy(metadata=Metadata(name=name), spec=PolicySpec.model_validate({"files": files}))


@given(FILES, FILES, PATHS)
def test_a_policy_more_leaves_each_path_as_it_was_or_makes_it_stricter(
    one: dict[str, Any], other: dict[str, Any], path: str
) -> None:
    every: dict[str, Any] = {**dict.fromkeys(NAMED, ()), **one}
    before = policy("one", every)
    after = merge([Applying(before, Rank.NAMESPACE), Applying(policy("other", other), Rank.WORKLOAD)]).policy
    assert strictness(path, after.spec.files) >= strictness(path, before.spec.files)


@given(FILES, PATHS)
def test_the_measurer_leaves_alone_exactly_what_nobody_judges(files: dict[str, Any], path: str) -> None:
    rules = FileRules.model_validate(files)
    assert Volatile(unread(rules)).covers(path.encode()) == (class_of(path, rules) in UNREAD)


@given(FILES, PATHS, PATHS)
def test_a_folder_that_is_not_entered_can_hold_nothing_that_is_judged(
    files: dict[str, Any], folder: str, below: str
) -> None:
    rules = FileRules.model_validate(files)
    if Volatile(unread(rules)).covers_all_below(folder.encode()):
        assert class_of(folder + below, rules) in UNREAD


def test_of_several_classes_the_loosest_holds_and_none_for_a_path_beyond_a_bound() -> None:
    rules = FileRules.model_validate(
        {"configuration": ["/srv/etc/**"], "logs": ["*.log"], "within": [{"logs": ["/srv/log/**"]}]}
    )
    assert class_of("/srv/log/a.log", rules) is FileClass.LOGS
    assert class_of("/srv/etc/a.log", rules) is FileClass.CONFIGURATION
    assert class_of("/srv/a.log", rules) is FileClass.CODE


def many(letter: str, size: int, start: int = 0) -> list[str]:
    return [f"/{number}{letter * (size - 10)}" for number in range(start, start + 1000)]


@pytest.mark.parametrize(("letter", "fits"), [("a", 40), ("\N{SNOWMAN}", 14), ("\N{OX}", 12)])
def test_what_a_policy_may_say_of_files_is_always_told_to_the_measurer_in_one_message(letter: str, fits: int) -> None:
    rules = FileRules.model_validate({"include": ["/srv"], "caches": many(letter, fits)})
    assert encode(Scope(1, rules.include, unread(rules)))
    with pytest.raises(ValidationError, match="bytes of paths and patterns"):
        FileRules.model_validate({"include": ["/srv"], "caches": many(letter, fits * 2)})


@pytest.mark.parametrize("patterns", [[""] * 20_000, ['"'] * 20_000, ["\x01"] * 20_000])
def test_many_patterns_of_little_are_as_many_bytes_as_they_take(patterns: list[str]) -> None:
    with pytest.raises(ValidationError, match="bytes of paths and patterns"):
        FileRules.model_validate({"caches": patterns})


def test_policies_that_together_say_too_much_of_files_are_refused_by_name() -> None:
    one, other = (policy(f"p{start}", {"caches": many("a", 40, start)}) for start in (0, 1000))
    with pytest.raises(InvalidConfiguration, match=r"bytes of paths and patterns.*p0 and .*p1000"):
        merge([Applying(one, Rank.NAMESPACE), Applying(other, Rank.WORKLOAD)])


# --- what is there ---

CONF, TOKEN = "/srv/app/etc/app.conf", "/srv/app/etc/token"
LOG, CACHE, DUMP, VOLUME = "/srv/app/log/today", "/srv/app/cache/page", "/srv/app/heap.hprof", "/srv/app/etc"
CLASSES = {
    "logs": ["/srv/app/log/**"],
    "caches": ["/srv/app/cache/**", "/srv/app/**/__pycache__/**"],
    "volatile": ["*.hprof"],
}
OLD, NEW = "a" * 64, "b" * 64


def under(**files: Any) -> AttestationPolicy:
    return policy("web", {"include": ["/srv/app"], **CLASSES, **files})


def references(**files: Any) -> ReferenceValues:
    """Main and page as always, the configuration in two contents, and these."""
    stated = {MAIN: [GOOD[MAIN]], PAGE: [GOOD[PAGE]], CONF: [OLD, NEW], **files}
    spec = {
        "files": {path: {"digests": digests} for path, digests in stated.items()},
        "executables": {path: [GOOD[path]] for path in (PYTHON, LOADER)},
    }
    return ReferenceValues(metadata=Metadata(name="web"), spec=ReferenceSpec.model_validate(spec))


STATED = references()


def found(
    *entries: Entry, under: AttestationPolicy, references: ReferenceValues = STATED, runs: str = PYTHON
) -> tuple[Finding, ...]:
    """By the verifier, with main and page as they should be."""
    claims, bodies = claimed((entry(MAIN), entry(PAGE), *entries), (process(runs, GOOD[PYTHON]),))
    return appraise(claims, bodies, governing(under, references)).reasons


def kinds(findings: tuple[Finding, ...]) -> list[tuple[str, str, str]]:
    return [(each.kind, each.finding_class.value, each.subject) for each in findings]


@pytest.mark.parametrize("path", [LOG, CACHE, DUMP, "/srv/app/lib/__pycache__/main.cpython-311.pyc"])
def test_what_is_in_logs_caches_and_volatile_is_judged_by_nobody(path: str) -> None:
    assert found(entry(CONF, OLD), entry(path, BAD), under=under()) == ()
    assert violates(FileFact(1.0, path, FileChange.ADDED, BAD), under(), STATED) is None


@pytest.mark.parametrize("content", [OLD, NEW])
def test_configuration_may_be_any_of_the_referenced_contents(content: str) -> None:
    assert found(entry(CONF, content), under=under(configuration=["/srv/app/etc/**"])) == ()


def test_configuration_with_another_content_or_beside_what_is_referenced_is_drift() -> None:
    findings = found(entry(CONF, BAD), entry(TOKEN, BAD), under=under(configuration=["/srv/app/etc/**"]))
    assert kinds(findings) == [("file-modified", "drift", CONF), ("file-unreferenced", "drift", TOKEN)]


ROLLOUT = {
    "files": {MAIN: {"digests": [GOOD[MAIN]]}},
    "versions": {
        version: {"files": {PAGE: {"digests": [page]}, CONF: {"digests": [conf]}}}
        for version, page, conf in (("1.0", GOOD[PAGE], OLD), ("1.1", BAD, NEW))
    },
    "executables": {path: [GOOD[path]] for path in (PYTHON, LOADER)},
}


def test_during_a_roll_out_configuration_may_be_that_of_another_version_and_code_may_not() -> None:
    mixed = ReferenceValues(metadata=Metadata(name="web"), spec=ReferenceSpec.model_validate(ROLLOUT))
    conf = entry(CONF, NEW)
    assert [each.kind for each in found(conf, under=under(), references=mixed)] == ["file-versions-mixed"]
    assert found(conf, under=under(configuration=["/srv/app/etc/*"]), references=mixed) == ()


# --- projected volumes ---

PROJECTED = under(projected=[f"{VOLUME}/**"])
FIRST, SECOND = "..2026_11_24_09_30_00.1", "..2026_11_24_09_45_00.2"


def of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def link(path: str, target: str) -> Entry:
    return Entry(path, LINK, 0o777, 0, 0, len(target), of_text(target))


def folder(path: str) -> Entry:
    return Entry(path, DIRECTORY, 0o755, 0, 0, 0, NO_DIGEST)


def state(name: str, conf: str, token: str = "c" * 64) -> tuple[Entry, ...]:
    """One state of the volume, as it is written before anything leads to it."""
    inside = f"{VOLUME}/{name}"
    return folder(inside), entry(f"{inside}/app.conf", conf), entry(f"{inside}/token", token)


def volume(current: str, *states: tuple[Entry, ...], **instead: Entry) -> tuple[Entry, ...]:
    """As Kubernetes lays it out. instead: by the name of what is there in place of what should be."""
    links = {
        "data": link(f"{VOLUME}/..data", current),
        "conf": link(CONF, "..data/app.conf"),
        "token": link(TOKEN, "..data/token"),
    }
    return folder(VOLUME), *{**links, **instead}.values(), *(each for written in states for each in written)


@pytest.mark.parametrize(
    "entries",
    [
        volume(FIRST, state(FIRST, OLD)),
        volume(FIRST, state(FIRST, OLD), state(SECOND, BAD)),
        volume(SECOND, state(FIRST, OLD), state(SECOND, NEW)),
        volume(SECOND, state(SECOND, NEW, token="d" * 64)),
        (*volume(FIRST, state(FIRST, OLD), state(SECOND, NEW)), link(f"{VOLUME}/..data_tmp", SECOND)),
    ],
    ids=["at rest", "the next state half-written", "swapped", "the last state removed", "in the middle of the swap"],
)
def test_no_moment_of_a_swap_is_a_finding(entries: tuple[Entry, ...]) -> None:
    assert found(*entries, under=PROJECTED) == ()


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        (volume(SECOND, state(FIRST, OLD), state(SECOND, BAD)), "file-modified"),
        (volume(FIRST, state(FIRST, OLD), conf=entry(CONF, BAD)), "file-modified"),
        (volume(FIRST, state(FIRST, OLD), conf=link(CONF, "/tmp/app.conf")), "file-modified"),
        (volume(FIRST, state(FIRST, OLD), conf=link(CONF, "..data/token")), "file-modified"),
        (volume("/tmp/evil", state(FIRST, OLD)), "file-missing"),
        (volume("..", state(FIRST, OLD)), "file-missing"),
        (volume(FIRST, (link(f"{VOLUME}/{FIRST}", "/tmp/evil"),)), "file-missing"),
        (volume(FIRST, state(FIRST, OLD), data=folder(f"{VOLUME}/..data")), "file-missing"),
        (volume(FIRST, state(FIRST, OLD), data=entry(f"{VOLUME}/..data", of_text(FIRST))), "file-missing"),
        (volume(FIRST, (folder(f"{VOLUME}/{FIRST}"),)), "file-missing"),
        (volume(FIRST, state(FIRST, OLD), conf=folder(CONF)), "file-missing"),
        (
            volume(FIRST, (folder(f"{VOLUME}/{FIRST}"), link(f"{VOLUME}/{FIRST}/app.conf", "/tmp/app.conf"))),
            "file-unreadable",
        ),
    ],
    ids=[
        "a content that is not referenced",
        "a file in the link's place",
        "a link to elsewhere",
        "a link to another name",
        "the volume led elsewhere",
        "the volume led to what is around it",
        "a link in place of the state",
        "a folder in place of the swap's link",
        "a file in place of the swap's link",
        "a state without it",
        "a folder in the link's place",
        "a link in the state",
    ],
)
def test_whatever_a_stable_name_leads_to_is_judged(entries: tuple[Entry, ...], kind: str) -> None:
    ((known, kind_class, subject),) = kinds(found(*entries, under=PROJECTED))
    assert (known, kind_class, subject) == (kind, "drift", CONF)


def test_files_in_folders_of_a_projected_volume_are_judged_by_their_stable_names() -> None:
    deep = f"{VOLUME}/sub/deep"
    stated = references(**{deep: [NEW]})
    written = (folder(f"{VOLUME}/{FIRST}/sub"), entry(f"{VOLUME}/{FIRST}/sub/deep", NEW))
    sub = link(f"{VOLUME}/sub", "..data/sub")
    assert found(*volume(FIRST, state(FIRST, OLD), written), sub, under=PROJECTED, references=stated) == ()
    elsewhere = link(f"{VOLUME}/sub", "/tmp/sub")
    findings = found(*volume(FIRST, state(FIRST, OLD), written), elsewhere, under=PROJECTED, references=stated)
    assert kinds(findings) == [("file-missing", "drift", deep)]


def test_names_that_only_one_state_has_need_not_be_there_although_they_are_referenced() -> None:
    stated = references(**{f"{VOLUME}/{FIRST}/app.conf": [OLD], f"{VOLUME}/..data": [OLD]})
    assert found(*volume(SECOND, state(SECOND, NEW)), under=PROJECTED, references=stated) == ()


def test_what_the_patterns_do_not_match_of_a_volume_is_code() -> None:
    findings = found(*volume(FIRST, state(FIRST, OLD)), under=under(projected=[f"{VOLUME}/*"]))
    assert ("file-unreferenced", "drift", f"{VOLUME}/{FIRST}/app.conf") in kinds(findings)


def test_reference_values_state_a_projected_volume_by_its_stable_names() -> None:
    written = (folder(f"{VOLUME}/{SECOND}/sub"), entry(f"{VOLUME}/{SECOND}/sub/deep", NEW))
    there = (
        *volume(SECOND, state(SECOND, NEW), written, state(FIRST, OLD)),
        link(f"{VOLUME}/sub", "..data/sub"),
        entry(f"{VOLUME}/plain", OLD),
        entry(MAIN),
    )
    stated = [each for each in by_stable_names(there, [f"{VOLUME}/**"]) if each.kind != DIRECTORY]
    shown = [(CONF, NEW), (TOKEN, "c" * 64), (f"{VOLUME}/sub/deep", NEW)]
    plain = [(f"{VOLUME}/plain", OLD), (MAIN, GOOD[MAIN])]
    assert sorted((each.path, each.digest) for each in stated) == sorted([*shown, *plain])
    assert [*by_stable_names(there, [])] == [*there]


def fact(entry: Entry, change: FileChange = FileChange.MODIFIED) -> FileFact:
    return FileFact(1.0, entry.path, change, entry.digest, entry.mode, link=entry.kind == LINK)


@pytest.mark.parametrize(
    "told",
    [
        fact(entry(f"{VOLUME}/{SECOND}/app.conf", BAD), FileChange.ADDED),
        fact(link(f"{VOLUME}/..data", SECOND)),
        fact(link(CONF, "..data/app.conf"), FileChange.ADDED),
        FileFact(1.0, f"{VOLUME}/{FIRST}/app.conf", FileChange.REMOVED),
    ],
)
def test_what_one_event_of_a_swap_means_only_the_whole_volume_tells(told: FileFact) -> None:
    assert violates(told, PROJECTED, STATED) is None
    assert undecided(told, PROJECTED)
    assert not undecided(told, policy("off", {}))


@pytest.mark.parametrize(
    "told",
    [fact(entry(CONF, BAD)), fact(link(CONF, "/tmp/evil")), FileFact(1.0, CONF, FileChange.REMOVED)],
    ids=["a file in its place", "a link elsewhere", "removed"],
)
def test_a_stable_name_that_no_longer_leads_into_the_volume_is_a_violation_at_once(told: FileFact) -> None:
    assert violates(told, PROJECTED, STATED) is not None


# --- what runs from there ---


@pytest.mark.parametrize("path", [LOG, CACHE, DUMP, f"{VOLUME}/{FIRST}/hook"])
def test_executing_anything_from_where_nobody_reads_is_tamper_although_it_is_referenced(path: str) -> None:
    allowed = ReferenceSpec.model_validate({"executables": {path: [GOOD[PYTHON]], LOADER: [GOOD[LOADER]]}})
    known = ReferenceValues(metadata=Metadata(name="web"), spec=allowed)
    executed = ExecutionFact(1.0, path, GOOD[PYTHON], Actor(9), Sighting.EVENT)
    violation = violates(executed, PROJECTED, known)
    assert violation is not None
    assert (violation.kind, violation.violation_class) == ("execution-from-data", ViolationClass.TAMPER)
    at_rest = found(under=PROJECTED, references=known, runs=path)
    assert ("execution-from-data", "tamper", path) in kinds(at_rest)
    assert violates(executed, policy("web", {"include": ["/srv/app"]}), known) is None


@pytest.mark.parametrize("path", [MAIN, CONF])
def test_what_is_read_and_judged_may_be_executed_where_it_is_referenced(path: str) -> None:
    allowed = ReferenceSpec.model_validate({"executables": {path: [GOOD[PYTHON]], LOADER: [GOOD[LOADER]]}})
    known = ReferenceValues(metadata=Metadata(name="web"), spec=allowed)
    executed = ExecutionFact(1.0, path, GOOD[PYTHON], Actor(9), Sighting.EVENT)
    assert violates(executed, under(configuration=["/srv/app/etc/**"]), known) is None


def test_every_class_that_is_not_read_is_one_from_which_nothing_runs() -> None:
    assert UNREAD < DATA
    assert FileClass.CODE not in DATA
    assert FileClass.CONFIGURATION not in DATA
