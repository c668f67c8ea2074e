"""Signals and their classes: policy states them, and verifier and sidecar hold to it alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import proxy as body
from attestation.claims import LayerClaim
from attestation.coverage import DETECTORS, EGRESS, CollectorCoverage, Mechanism
from attestation.detectors.alerts import Detector
from attestation.errors import InvalidConfiguration
from attestation.facts import (
    Actor,
    CallFact,
    CapabilityFact,
    CollectorFact,
    CollectorState,
    EgressFact,
    ExecutionFact,
    Fact,
    FileChange,
    FileFact,
    MemoryFact,
    MountFact,
    Opened,
    Passage,
    PreloadFact,
    ProcessAspect,
    ProcessFact,
    ProxyFact,
    RefusalFact,
    ScriptFact,
    Sighting,
    StdioFact,
)
from attestation.layers import Layer, Method
from attestation.manifest import FILE, LINK, NO_DIGEST, Entry
from attestation.memory import Code, CodeKind
from attestation.processes import ProcessKind
from attestation.proxy import Delivered, Denial, Known, Proxy, ProxyProcess
from attestation.signals import Signal
from attestation.violation import Violation, ViolationClass
from policies.appraise.appraise import appraise
from policies.appraise.proxy import check_served
from policies.appraise.reasons import Finding
from policies.appraise.versions import check_versions
from policies.appraise.violation import violates
from policies.model import dialect
from policies.model.detectors import DetectorDemand, DetectorRules
from policies.model.policy import AttestationPolicy, LayerDemand, PolicySpec
from policies.model.references import EffectiveReferences, FileReference, ReferenceSpec, Rollout
from tests.unit.policies.world import (
    BAD,
    GOOD,
    LOADER,
    MAIN,
    PAGE,
    POLICY,
    PYTHON,
    REFERENCES,
    claimed,
    coverage,
    entry,
    governing,
)

SETTINGS = "/srv/app/web.conf"
LIBRARY = "/usr/lib/libx.so"
PLUGIN = "/srv/app/cache/plugin"
"""Referenced, where nothing may be executed from."""
STATABLE = [each for each in Signal if not each.fixed]
GRAVER = {ViolationClass.DRIFT: ViolationClass.TAMPER, ViolationClass.TAMPER: ViolationClass.DRIFT}
BUILD = "5" * 64

LISTED = EffectiveReferences(
    metadata=REFERENCES.metadata,
    spec=ReferenceSpec(
        files={
            MAIN: FileReference.model_validate({"digests": [GOOD[MAIN]], "mode": "0644", "uid": 0}),
            PAGE: FileReference.model_validate({"digests": [GOOD[PAGE]], "optional": True}),
            SETTINGS: FileReference.model_validate({"digests": [GOOD[MAIN], GOOD[PAGE]], "mode": "0644"}),
        },
        executables={PYTHON: (GOOD[PYTHON],), LOADER: (GOOD[LOADER],), PLUGIN: (GOOD[PYTHON],)},
        proxies={"1.40.0": (BUILD,)},
    ),
)
MIXED = LISTED.model_copy(
    update={
        "rollouts": (
            Rollout.model_construct(
                versions={
                    label: {
                        path: (FileReference.model_validate({"digests": [digest]}),) for path in (MAIN, "/srv/app/b")
                    }
                    for label, digest in (("1", GOOD[MAIN]), ("2", BAD))
                }
            ),
        )
    }
)


def ruled(stated: Mapping[Signal, ViolationClass] | None = None, **changes: Any) -> AttestationPolicy:
    """Everything is asked for; `stated` are the classes that policy states."""
    return AttestationPolicy(
        metadata=POLICY.metadata,
        spec=PolicySpec.model_validate(
            {
                "mode": "enforce",
                "layers": {"files": {}, "processes": {}, "proxy": {}},
                "files": {"include": ["/srv/app"], "configuration": ["*.conf"], "volatile": ["/srv/app/cache/**"]},
                "processes": {"mostCapabilities": "0f", "requireNoNewPrivileges": True},
                "egress": {"allowed": ["10.0.0.0/8"]},
                "proxy": {"requireDrainNow": True, "requireDenyFilters": True, "requireResumptionOff": True},
                "onViolation": dict(stated or {}),
                **changes,
            }
        ),
    )


ENVOY = Proxy(
    ProxyProcess(BUILD, traced=Known.NO, dumpable=Known.NO, drains_at_once=Known.YES),
    Delivered.EVERYTHING,
    Denial.IN_FORCE,
    ("rbac-inbound-http",),
    resumption_off=Known.YES,
)
FILES = (entry(MAIN), entry(PAGE), entry(SETTINGS, GOOD[MAIN]))


def running(executable: str = PYTHON, digest: str = GOOD[PYTHON], *, deleted: bool = False) -> ProcessKind:
    return ProcessKind(executable, digest, LOADER, GOOD[LOADER], 0, 0, "0", True, 0, (), deleted)


def reasons(
    policy: AttestationPolicy,
    entries: tuple[Entry, ...] = FILES,
    kinds: tuple[ProcessKind, ...] = (running(),),
    envoy: Proxy = ENVOY,
    *,
    watching: bool = True,
) -> tuple[Finding, ...]:
    """What the verifier finds in claims that show this."""
    claims, bodies = claimed(entries, kinds, watchers=coverage(running=watching))
    packed = body.pack(envoy)
    claim = LayerClaim(Layer.PROXY, body.digest(packed), Method.FULL, 10, 10, 1)
    collector = CollectorCoverage("proxy", Layer.PROXY, Mechanism.POLL, 1000.0, running=True)
    connections = CollectorCoverage(EGRESS, Layer.PROCESSES, Mechanism.POLL, 1000.0, running=True)
    covered = replace(claims.coverage, collectors=(*claims.coverage.collectors, connections, collector))
    claims = replace(claims, layers=(*claims.layers, claim), coverage=covered)
    return appraise(claims, bodies | {claim.digest: packed}, governing(policy, LISTED)).reasons


# What policies may say.


def read(text: str) -> AttestationPolicy:
    ((value, node),) = dialect.parse(text, "web.yaml")
    return dialect.validate(value, node, AttestationPolicy, "web.yaml")


HEAD = "apiVersion: proofbeat.dev/v1alpha1\nkind: AttestationPolicy\nmetadata: {name: web}\nspec:\n  onViolation:\n"


def test_a_misspelt_signal_is_refused_where_it_stands_by_the_nearest_that_there_is() -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        read(f"{HEAD}    file-modifed: tamper\n")
    assert refused.value.where == "web.yaml:6:5"
    assert "did you mean 'file-modified'?" in refused.value.what


@pytest.mark.parametrize("signal", [each for each in Signal if each.fixed])
def test_the_class_of_what_speaks_of_no_workload_is_not_stated_by_a_policy(signal: Signal) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        read(f"{HEAD}    {signal}: tamper\n")
    assert "not for a policy to state" in refused.value.what


@pytest.mark.parametrize("signal", STATABLE)
def test_every_other_class_is(signal: Signal) -> None:
    graver = GRAVER[signal.default]
    spec = read(f"{HEAD}    {signal}: {graver}\n").spec
    assert spec.violation_class(signal) is graver
    assert PolicySpec().violation_class(signal) is signal.default


# Where it is found, the stated class is its class.


def fact_of(aspect: ProcessAspect, before: str = "0", after: str = "1") -> ProcessFact:
    return ProcessFact(1.0, Actor(9, PYTHON), aspect, before, after)


def with_calls(policy: AttestationPolicy) -> AttestationPolicy:
    """The same, where the layer of calls is required as well."""
    layers = {**policy.spec.layers, Layer.SYSCALLS: LayerDemand()}
    return policy.model_copy(update={"spec": policy.spec.model_copy(update={"layers": layers})})


def with_uses(policy: AttestationPolicy) -> AttestationPolicy:
    """The same, where no use of a capability is expected."""
    spec = with_calls(policy).spec
    rules = spec.syscalls.model_copy(update={"capabilities": ()})
    return policy.model_copy(update={"spec": spec.model_copy(update={"syscalls": rules})})


def seen(fact: Fact) -> Callable[[AttestationPolicy], list[Violation | Finding]]:
    def look(policy: AttestationPolicy) -> list[Violation | Finding]:
        found = violates(fact, policy, LISTED)
        return [found] if found is not None else []

    return look


def shown(**claims: Any) -> Callable[[AttestationPolicy], list[Violation | Finding]]:
    return lambda policy: list(reasons(policy, **claims))


def mapped(code: Code) -> Callable[[AttestationPolicy], list[Violation | Finding]]:
    """Where the layer is asked for."""

    def look(policy: AttestationPolicy) -> list[Violation | Finding]:
        layers = {**policy.spec.layers, Layer.MEMORY: LayerDemand()}
        asking = policy.model_copy(update={"spec": policy.spec.model_copy(update={"layers": layers})})
        return seen(MemoryFact(1.0, Actor(9, PYTHON), code))(asking)

    return look


def varied(**process: Any) -> Proxy:
    return replace(ENVOY, process=replace(ENVOY.process, **process))


def ran(temporary: str = "", gains: str = "") -> ExecutionFact:
    return ExecutionFact(1.0, PYTHON, GOOD[PYTHON], Actor(9), Sighting.EVENT, temporary=temporary, gains=gains)


def begun(path: str, digest: str) -> ScriptFact:
    return ScriptFact(1.0, path, digest, Actor(9, PYTHON), Sighting.EVENT)


def forbidding(field: str, fact: Fact) -> Callable[[AttestationPolicy], list[Violation | Finding]]:
    def look(policy: AttestationPolicy) -> list[Violation | Finding]:
        rules = policy.spec.processes.model_copy(update={field: True})
        spec = policy.spec.model_copy(update={"processes": rules})
        return seen(fact)(policy.model_copy(update={"spec": spec}))

    return look


def requiring(detector: Detector) -> Callable[[AttestationPolicy], list[Violation | Finding]]:
    """By the fact that it is gone, and by evidence that says nothing of it."""

    def look(policy: AttestationPolicy) -> list[Violation | Finding]:
        rules = DetectorRules(sources={detector: DetectorDemand()})
        asking = policy.model_copy(update={"spec": policy.spec.model_copy(update={"detectors": rules})})
        gone = CollectorFact(1.0, f"{DETECTORS}{detector}", CollectorState.DEAD)
        seen_there = seen(gone)(asking)
        shown_there = [each for each in reasons(asking) if each.kind is Signal.DETECTOR_SILENT]
        assert len(seen_there) == len(shown_there) == 1
        return [*seen_there, *shown_there]

    return look


FOUND: dict[Signal, Callable[[AttestationPolicy], list[Violation | Finding]]] = {
    Signal.FILE_MODIFIED: shown(entries=(entry(MAIN, BAD), *FILES[1:])),
    Signal.FILE_MISSING: shown(entries=FILES[1:]),
    Signal.FILE_UNREFERENCED: shown(entries=(*FILES, entry("/srv/app/extra"))),
    Signal.FILE_UNREADABLE: shown(entries=(entry(MAIN, NO_DIGEST), *FILES[1:])),
    Signal.FILE_ATTRIBUTES: shown(entries=(entry(MAIN, mode=0o4755), *FILES[1:])),
    Signal.FILE_VERSIONS_MIXED: lambda policy: list(
        check_versions((entry(MAIN), entry("/srv/app/b", BAD)), policy, MIXED)
    ),
    Signal.FILE_WRITTEN: lambda policy: seen(FileFact(1.0, MAIN, FileChange.WRITTEN))(
        policy.model_copy(
            update={
                "spec": policy.spec.model_copy(
                    update={"files": policy.spec.files.model_copy(update={"immutable": True})}
                )
            }
        )
    ),
    Signal.MOUNT_CHANGED: seen(MountFact(1.0, "/srv", mounted=True)),
    Signal.EXECUTION_FOREIGN: shown(kinds=(running("/tmp/x", BAD),)),
    Signal.EXECUTION_MODIFIED: shown(kinds=(running(PYTHON, BAD),)),
    Signal.EXECUTION_DELETED: shown(kinds=(running(deleted=True),)),
    Signal.EXECUTION_FROM_DATA: shown(kinds=(running(PLUGIN),)),
    Signal.EXECUTION_REFUSED: seen(RefusalFact(1.0, "/tmp/x", BAD, Actor(9, PYTHON))),
    Signal.EXECUTION_FROM_TEMPORARY: forbidding("forbid_temporary", ran(temporary="tmpfs")),
    Signal.EXECUTION_GAINING: forbidding("forbid_gaining", ran(gains="user 0")),
    Signal.SCRIPT_FOREIGN: seen(begun("/tmp/x.py", BAD)),
    Signal.SCRIPT_MODIFIED: seen(begun(MAIN, BAD)),
    Signal.SCRIPT_FROM_DATA: seen(begun(PLUGIN, GOOD[PYTHON])),
    Signal.CAPABILITIES_EXCEEDED: shown(kinds=(replace(running(), capabilities="1ff"),)),
    Signal.PRIVILEGES_OPEN: shown(kinds=(replace(running(), no_new_privileges=False),)),
    Signal.PROCESS_CAPABILITIES: seen(fact_of(ProcessAspect.CAPABILITIES)),
    Signal.PROCESS_SECCOMP: seen(fact_of(ProcessAspect.SECCOMP, "2", "0")),
    Signal.PROCESS_NO_NEW_PRIVILEGES: seen(fact_of(ProcessAspect.NO_NEW_PRIVILEGES, "1", "0")),
    Signal.PROCESS_NAMESPACES: seen(fact_of(ProcessAspect.NAMESPACES)),
    Signal.PROCESS_USER: seen(fact_of(ProcessAspect.USER, "1000", "0")),
    Signal.PROCESS_TRACER: seen(fact_of(ProcessAspect.TRACER)),
    Signal.PROCESS_LABEL: seen(fact_of(ProcessAspect.LABEL, "web (enforce)", "unconfined")),
    Signal.PROCESS_PRELOAD: seen(PreloadFact(1.0, "LD_PRELOAD", "/tmp/x.so", Actor(9, PYTHON), "/tmp/x.so", BAD)),
    Signal.PROCESS_SCOPE: seen(fact_of(ProcessAspect.SCOPE)),
    Signal.PROCESS_UNMEASURED: seen(fact_of(ProcessAspect.UNMEASURED, "no", "yes: it is hidden from us")),
    Signal.PROCESS_WRITTEN: seen(fact_of(ProcessAspect.WRITTEN, "", "7 /usr/bin/gdb")),
    Signal.CALL_FOREIGN: lambda policy: seen(CallFact(1.0, "chroot", Actor(9, PYTHON)))(with_calls(policy)),
    Signal.CAPABILITY_USED: lambda policy: seen(CapabilityFact(1.0, "CAP_SYS_CHROOT", "chroot", Actor(9, PYTHON)))(
        with_uses(policy)
    ),
    Signal.PROCESS_STDIO_SOCKET: seen(StdioFact(1.0, Actor(9, "/bin/dash"), (0, 1), "TCP", Opened.HERE)),
    Signal.EGRESS_FOREIGN: seen(EgressFact(1.0, Actor(9, PYTHON), "tcp", "203.0.113.9", 443)),
    Signal.EGRESS_REFUSED: seen(EgressFact(1.0, Actor(9, PYTHON), "tcp", "203.0.113.9", 443, passage=Passage.REFUSED)),
    Signal.MEMORY_CODE_PATCHED: mapped(Code(CodeKind.PATCHED, PYTHON, LIBRARY, GOOD[MAIN], offset=4096)),
    Signal.MEMORY_CODE_PROBED: mapped(Code(CodeKind.PROBED, PYTHON, LIBRARY, GOOD[MAIN], offset=4096)),
    Signal.MEMORY_CODE_FOREIGN: mapped(Code(CodeKind.FILE, path=LIBRARY, digest=BAD)),
    Signal.MEMORY_CODE_MODIFIED: mapped(Code(CodeKind.FILE, path=MAIN, digest=BAD)),
    Signal.MEMORY_CODE_DELETED: mapped(Code(CodeKind.FILE, path=MAIN, digest=BAD, deleted=True)),
    Signal.MEMORY_CODE_ANONYMOUS: mapped(Code(CodeKind.ANONYMOUS, PYTHON, amount=4096)),
    Signal.MEMORY_CODE_WRITABLE: mapped(Code(CodeKind.FILE, PYTHON, MAIN, GOOD[MAIN], writable=True)),
    Signal.MEMORY_UNMEASURED: mapped(Code(CodeKind.UNREAD, PYTHON)),
    Signal.PROXY_FOREIGN: shown(envoy=varied(executable=BAD)),
    Signal.PROXY_TRACED: shown(envoy=varied(traced=Known.YES)),
    Signal.PROXY_UNDENIED: shown(envoy=replace(ENVOY, denial=Denial.MISSING, filters=())),
    Signal.PROXY_DRAINING: shown(envoy=varied(drains_at_once=Known.NO)),
    Signal.PROXY_RESUMING: shown(envoy=replace(ENVOY, resumption_off=Known.NO)),
    Signal.PROXY_CERTIFICATE: lambda policy: list(check_served(7, (), policy)),
    Signal.COLLECTOR_OVERFLOWED: seen(CollectorFact(1.0, "files-watch", CollectorState.OVERFLOWED)),
    Signal.COLLECTOR_LAGGING: seen(CollectorFact(1.0, "files", CollectorState.LAGGING)),
    Signal.COLLECTOR_DEAD: shown(watching=False),
    Signal.DETECTOR_SILENT: requiring(Detector.FALCO),
}


@pytest.mark.parametrize("signal", FOUND)
def test_a_signals_class_is_its_default_or_the_one_that_policy_states(signal: Signal) -> None:
    for stated, expected in (({}, signal.default), ({signal: GRAVER[signal.default]}, GRAVER[signal.default])):
        found = [each for each in FOUND[signal](ruled(stated)) if each.kind is signal]
        classes = {each.violation_class if isinstance(each, Violation) else each.finding_class for each in found}
        assert classes == {expected}


def test_no_signal_whose_class_can_be_stated_is_left_out_here() -> None:
    assert {*STATABLE} - FOUND.keys() == {Signal.MEASURER_LOST}, "which the sidecar finds of itself"


def test_a_deviation_of_configuration_stays_drift_whatever_is_stated_of_files() -> None:
    policy = ruled({Signal.FILE_MODIFIED: ViolationClass.TAMPER})
    (found,) = reasons(policy, (*FILES[:2], entry(SETTINGS, BAD)))
    assert (found.kind, found.finding_class) == (Signal.FILE_MODIFIED, ViolationClass.DRIFT)


# The sidecar sees in a fact what the verifier sees in the claims that it leads to.

STATED = st.fixed_dictionaries({each: st.sampled_from(ViolationClass) for each in STATABLE})
PATHS = [MAIN, PAGE, SETTINGS, "/srv/app/extra.py", "/srv/app/extra.conf", "/srv/app/cache/x", "/etc/passwd"]
DIGESTS = [GOOD[MAIN], GOOD[PAGE], GOOD[PYTHON], BAD]
CHANGED = st.builds(
    FileFact,
    at=st.just(1.0),
    path=st.sampled_from(PATHS),
    change=st.sampled_from([FileChange.ADDED, FileChange.MODIFIED, FileChange.ATTRIBUTES]),
    digest=st.sampled_from(DIGESTS),
    mode=st.sampled_from([0o644, 0o755, 0o4755]),
    uid=st.sampled_from([0, 1000]),
    gid=st.just(0),
    actor=st.sampled_from([None, Actor(9, "/bin/sh")]),
    link=st.booleans(),
)
GONE = st.builds(
    lambda path, change: FileFact(1.0, path, change),
    st.sampled_from(PATHS),
    st.sampled_from([FileChange.REMOVED, FileChange.UNREADABLE]),
)
RUN = st.builds(
    ExecutionFact,
    at=st.just(1.0),
    path=st.sampled_from([PYTHON, LOADER, PLUGIN, "/tmp/x", "/srv/app/cache/x", "/srv/app/web.conf", MAIN]),
    digest=st.sampled_from([GOOD[PYTHON], GOOD[LOADER], BAD, ""]),
    process=st.just(Actor(9)),
    sighting=st.sampled_from(Sighting),
    deleted=st.booleans(),
)
ANSWERS = st.sampled_from(Known)
SEATED = st.builds(
    lambda executable, answers, denial: ProxyFact(
        1.0,
        Proxy(
            ProxyProcess(executable, traced=answers[0], dumpable=Known.NO, drains_at_once=answers[1]),
            Delivered.EVERYTHING,
            denial,
            ("rbac-inbound-http",) if denial is Denial.IN_FORCE else (),
            resumption_off=answers[2],
        ),
        Actor(9, "/usr/bin/envoy"),
    ),
    st.sampled_from([BUILD, BAD, ""]),
    st.tuples(ANSWERS, ANSWERS, ANSWERS),
    st.sampled_from(Denial),
)


def led_to(fact: FileFact | ExecutionFact | ProxyFact, policy: AttestationPolicy) -> tuple[Finding, ...]:
    """What the verifier finds once the layer shows what the fact told."""
    match fact:
        case FileFact():
            others = tuple(each for each in FILES if each.path != fact.path)
            kind, digest = LINK if fact.link else FILE, fact.digest or NO_DIGEST
            now = Entry(fact.path, kind, fact.mode, fact.uid, fact.gid, 0, digest)
            return reasons(policy, others if fact.change is FileChange.REMOVED else (*others, now))
        case ExecutionFact():
            return reasons(policy, kinds=(running(fact.path, fact.digest, deleted=fact.deleted),))
        case ProxyFact():
            return reasons(policy, envoy=fact.proxy)


@given(STATED, st.one_of(CHANGED, GONE, RUN, SEATED), st.sampled_from(["required", "best-effort", "off"]))
def test_a_fact_and_the_claims_that_it_leads_to_give_the_same_signal_class_and_rule(
    stated: dict[Signal, ViolationClass], fact: FileFact | ExecutionFact | ProxyFact, demand: str
) -> None:
    policy = ruled(stated, layers={layer: {"demand": demand} for layer in ("files", "processes", "proxy")})
    found, claimed_of = violates(fact, policy, LISTED), led_to(fact, policy)
    if found is None:
        assert claimed_of == ()
        return
    gravest = next((each for each in claimed_of if each.finding_class is ViolationClass.TAMPER), claimed_of[0])
    assert found.tamper == any(each.finding_class is ViolationClass.TAMPER for each in claimed_of)
    assert (found.kind, found.violation_class, found.layer, found.subject, found.rule, found.mend, found.allow) == (
        gravest.kind,
        gravest.finding_class,
        gravest.layer,
        gravest.subject,
        gravest.rule,
        gravest.mend,
        gravest.allow,
    )
    assert found.text.startswith(gravest.text)


@pytest.mark.parametrize(
    ("drift", "program", "found"),
    [
        (Signal.EXECUTION_DELETED, running("/tmp/x", BAD, deleted=True), Signal.EXECUTION_FOREIGN),
        (Signal.EXECUTION_DELETED, running(PYTHON, BAD, deleted=True), Signal.EXECUTION_MODIFIED),
        (Signal.EXECUTION_DELETED, running(PLUGIN, deleted=True), Signal.EXECUTION_FROM_DATA),
        (Signal.EXECUTION_FROM_DATA, running("/srv/app/cache/x", BAD), Signal.EXECUTION_FOREIGN),
    ],
)
def test_what_policy_calls_drift_hides_no_tamper_of_the_same_program(
    drift: Signal, program: ProcessKind, found: Signal
) -> None:
    policy = ruled({drift: ViolationClass.DRIFT})
    fact = ExecutionFact(1.0, program.executable, program.digest, Actor(9), Sighting.EVENT, program.deleted)
    seen, (told,) = violates(fact, policy, LISTED), reasons(policy, kinds=(program,))
    assert seen is not None
    assert (seen.kind, seen.violation_class) == (told.kind, told.finding_class) == (found, ViolationClass.TAMPER)


def test_a_program_of_which_nothing_else_is_wrong_is_the_drift_that_policy_calls_it() -> None:
    (told,) = reasons(ruled({Signal.EXECUTION_DELETED: ViolationClass.DRIFT}), kinds=(running(deleted=True),))
    assert (told.kind, told.finding_class) == (Signal.EXECUTION_DELETED, ViolationClass.DRIFT)


FOREIGN_AND_OPEN = FileFact(1.0, MAIN, FileChange.MODIFIED, BAD, 0o4755, 1000, 0)
"""Another content, and rights and an owner that are not referenced either."""


@pytest.mark.parametrize(
    ("stated", "found", "found_class"),
    [
        ({Signal.FILE_ATTRIBUTES: ViolationClass.TAMPER}, Signal.FILE_ATTRIBUTES, ViolationClass.TAMPER),
        ({Signal.FILE_MODIFIED: ViolationClass.TAMPER}, Signal.FILE_MODIFIED, ViolationClass.TAMPER),
        ({}, Signal.FILE_MODIFIED, ViolationClass.DRIFT),
    ],
)
def test_a_changed_content_hides_no_attributes_that_policy_calls_tamper(
    stated: dict[Signal, ViolationClass], found: Signal, found_class: ViolationClass
) -> None:
    policy = ruled(stated)
    seen, (told,) = violates(FOREIGN_AND_OPEN, policy, LISTED), led_to(FOREIGN_AND_OPEN, policy)
    assert seen is not None
    assert (seen.kind, seen.violation_class) == (told.kind, told.finding_class) == (found, found_class)


def test_a_file_that_cannot_be_read_is_that_whatever_its_attributes_are() -> None:
    unread = Entry(MAIN, FILE, 0o4755, 1000, 0, 0, NO_DIGEST)
    (told,) = reasons(ruled({Signal.FILE_ATTRIBUTES: ViolationClass.TAMPER}), (unread, *FILES[1:]))
    assert (told.kind, told.finding_class) == (Signal.FILE_UNREADABLE, ViolationClass.DRIFT)
