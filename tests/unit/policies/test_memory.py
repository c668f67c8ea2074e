"""What processes may have mapped as code: the sidecar's facts and the verifier's claims, judged alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attestation import claimset, memory
from attestation.claims import Claims, LayerClaim
from attestation.coverage import CollectorCoverage, Mechanism
from attestation.facts import Actor, MemoryFact
from attestation.layers import Layer, Method
from attestation.memory import Code, CodeKind, rounded
from attestation.signals import Signal
from attestation.trust import Tier
from policies.appraise.appraise import appraise
from policies.appraise.memory import check_code
from policies.appraise.reasons import Finding, Verdict
from policies.appraise.violation import violates
from policies.model import dialect
from policies.model.memory import CodeAllowance, amount_text
from policies.model.merge import Applying, Rank, merge
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import ReferenceValues
from tests.unit.policies.world import BAD, GOOD, MAIN, POLICY, PYTHON, REFERENCES, claimed, governing

NODE, MIB = "/usr/bin/node", 1 << 20
FILE = Code(CodeKind.FILE, path=PYTHON, digest=GOOD[PYTHON])
MADE = Code(CodeKind.ANONYMOUS, NODE, writable=True, amount=64 * MIB)
JIT = {"executable": NODE, "most": "64MiB", "writable": True}


def ruled(demand: str = "required", *jit: dict[str, Any], **changes: Any) -> AttestationPolicy:
    spec = {
        "layers": {"files": {}, "processes": {}, "memory": {"demand": demand}},
        "files": {"include": ["/srv/app"], "logs": ["/var/log/**"]},
        "memory": {"jit": list(jit)},
        **changes,
    }
    return AttestationPolicy(metadata=POLICY.metadata, spec=PolicySpec.model_validate(spec))


def measured_too(*code: Code, running: bool = True) -> tuple[Claims, dict[str, bytes]]:
    """Claims that have this code as well, and the bodies behind them."""
    claims, bodies = claimed()
    packed = memory.pack(code)
    claim = LayerClaim(Layer.MEMORY, memory.digest(packed), Method.FULL, 10, 10, len(code))
    watching = CollectorCoverage("memory", Layer.MEMORY, Mechanism.POLL, 5000.0, running)
    coverage = replace(claims.coverage, collectors=(*claims.coverage.collectors, watching))
    claims = replace(claims, layers=(*claims.layers, claim), coverage=coverage)
    return claims, bodies | {claim.digest: packed}


def appraised(policy: AttestationPolicy, *code: Code, running: bool = True, measured: bool = True) -> Verdict:
    claims, bodies = measured_too(*code, running=running) if measured else claimed()
    return appraise(claims, bodies, governing(policy))


CODES = st.builds(
    Code,
    kind=st.sampled_from(CodeKind),
    executable=st.sampled_from(["", PYTHON, NODE]),
    path=st.sampled_from([PYTHON, MAIN, "/usr/lib/libx.so", "/var/log/x.so"]),
    digest=st.sampled_from(["", BAD, *GOOD.values()]),
    writable=st.booleans(),
    deleted=st.booleans(),
    amount=st.sampled_from([0, 4096, 64 * MIB, 128 * MIB]),
    offset=st.sampled_from([0, 8192]),
)


@given(CODES, st.sampled_from(["required", "best-effort", "off"]), st.booleans())
def test_what_the_sidecar_sees_of_code_is_what_the_verifier_finds(code: Code, demand: str, allowed: bool) -> None:
    policy = ruled(demand, *([JIT] if allowed else []))
    told = violates(MemoryFact(1.0, Actor(9, NODE), code), policy, REFERENCES)
    found = [each for each in appraised(policy, code).reasons if each.layer is Layer.MEMORY]
    assert [(each.kind, each.finding_class, each.subject, each.allow) for each in found] == (
        [(told.kind, told.violation_class, told.subject, told.allow)] if told else []
    )


def found(code: Code, policy: AttestationPolicy | None = None) -> Finding:
    finding = check_code(code, policy or ruled(), REFERENCES)
    assert finding is not None
    return finding


@pytest.mark.parametrize(
    "code",
    [
        FILE,
        Code(CodeKind.FILE, path=MAIN, digest=GOOD[MAIN]),
        replace(FILE, deleted=True),
    ],
    ids=["an executable", "a file", "one that was replaced under its name since"],
)
def test_what_may_be_executed_or_be_there_may_be_mapped_as_code(code: Code) -> None:
    assert check_code(code, ruled(), REFERENCES) is None


@pytest.mark.parametrize(
    ("code", "signal"),
    [
        (Code(CodeKind.FILE, path="/tmp/x.so", digest=GOOD[PYTHON]), Signal.MEMORY_CODE_FOREIGN),
        (Code(CodeKind.FILE, path="/var/log/x.so", digest=GOOD[PYTHON]), Signal.MEMORY_CODE_FOREIGN),
        (replace(FILE, digest=BAD), Signal.MEMORY_CODE_MODIFIED),
        (replace(FILE, digest=""), Signal.MEMORY_CODE_MODIFIED),
        (replace(FILE, digest=BAD, deleted=True), Signal.MEMORY_CODE_DELETED),
        (replace(FILE, executable=PYTHON, writable=True), Signal.MEMORY_CODE_WRITABLE),
        (replace(MADE, writable=False), Signal.MEMORY_CODE_ANONYMOUS),
        (replace(MADE, kind=CodeKind.MEMFD, deleted=True), Signal.MEMORY_CODE_DELETED),
        (Code(CodeKind.PATCHED, NODE, PYTHON, GOOD[PYTHON], offset=8192), Signal.MEMORY_CODE_PATCHED),
        (Code(CodeKind.PROBED, NODE, PYTHON, GOOD[PYTHON], offset=8192), Signal.MEMORY_CODE_PROBED),
        (Code(CodeKind.UNREAD, NODE), Signal.MEMORY_UNMEASURED),
        (Code(CodeKind.UNTOLD), Signal.MEMORY_UNMEASURED),
    ],
)
def test_everything_else_has_its_signal_and_contraindicates_executables(code: Code, signal: Signal) -> None:
    assert found(code).kind is signal
    verdict = appraised(ruled(), code)
    assert Tier.of(verdict.vector.executables) is Tier.CONTRAINDICATED
    assert verdict.tamper


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, True),
        ({"amount": 128 * MIB}, False),
        ({"kind": CodeKind.MEMFD}, False),
        ({"executable": PYTHON}, False),
        ({"writable": False, "amount": 4096}, True),
    ],
)
def test_a_program_may_make_as_much_code_as_policy_allows_it(changes: dict[str, Any], allowed: bool) -> None:
    assert (check_code(replace(MADE, **changes), ruled("required", JIT), REFERENCES) is None) is allowed


def test_what_is_referenced_may_not_be_mapped_from_where_nothing_may_be_executed() -> None:
    assert found(FILE, ruled(files={"logs": [PYTHON]})).kind is Signal.MEMORY_CODE_FOREIGN


def test_of_two_policies_both_have_to_allow_it_and_the_lesser_amount_holds() -> None:
    java = {"executable": "/usr/bin/java", "most": "1GiB", "memfd": True}
    one = {"jit": [JIT, java]}
    other = {"jit": [{**JIT, "most": "1MiB", "writable": False, "memfd": True}]}
    for each in ((one, other), (other, one)):
        first, second = (
            Applying(
                AttestationPolicy(metadata=POLICY.metadata, spec=PolicySpec.model_validate({"memory": said})), rank
            )
            for said, rank in zip(each, (Rank.MESH, Rank.WORKLOAD), strict=True)
        )
        (allowed,) = merge([first, second]).policy.spec.memory.jit
        assert (allowed.executable, allowed.most, allowed.writable, allowed.memfd) == (NODE, MIB, False, False)
    alone = AttestationPolicy(metadata=POLICY.metadata, spec=PolicySpec.model_validate({"memory": one}))
    silent = AttestationPolicy(metadata=POLICY.metadata, spec=PolicySpec())
    merged = merge([Applying(silent, Rank.MESH), Applying(alone, Rank.WORKLOAD)])
    assert len(merged.policy.spec.memory.jit) == 2


def test_code_that_is_writable_where_it_may_not_be_is_no_less_grave_for_its_amount_being_called_drift() -> None:
    policy = ruled(onViolation={"memory-code-anonymous": "drift"})
    assert found(MADE, policy).kind is Signal.MEMORY_CODE_WRITABLE


@pytest.mark.parametrize(
    "code",
    [
        MADE,
        replace(MADE, kind=CodeKind.MEMFD),
        replace(FILE, digest=BAD),
        Code(CodeKind.FILE, path="/tmp/x.so", digest=BAD),
        Code(CodeKind.FILE, path="/var/log/x.so", digest=BAD),
    ],
)
def test_what_a_finding_says_would_allow_it_does(code: Code) -> None:
    policy = ruled("required", {"executable": PYTHON, "most": "1MiB"})
    stated = [each for each in yaml.safe_load_all(found(code, policy).allow) if each]
    spec = policy.spec.model_dump(by_alias=True, mode="json", exclude_unset=True)
    listed = REFERENCES.spec.model_dump(by_alias=True, mode="json")
    for each in stated:
        into = spec if each["kind"] == "AttestationPolicy" else listed
        for section, content in each["spec"].items():
            into[section] = {**into[section], **content}
    allowing = AttestationPolicy.model_validate({"metadata": {"name": "web"}, "spec": spec})
    references = ReferenceValues.model_validate({"metadata": {"name": "web"}, "spec": listed})
    assert check_code(code, allowing, references) is None
    assert allowing.spec.memory.allowance(PYTHON) is not None


def test_a_layer_that_nobody_measures_affirms_nothing_and_one_that_is_not_asked_for_is_not_missed() -> None:
    assert {each.kind for each in appraised(ruled(), measured=False).reasons} == {Signal.LAYER_ABSENT}
    assert {each.kind for each in appraised(ruled(), running=False).reasons} == {Signal.COLLECTOR_DEAD}
    assert appraised(ruled("off"), MADE).reasons == ()
    assert appraised(ruled(), FILE).tier is Tier.AFFIRMING


def test_rules_see_how_much_of_it_there_is() -> None:
    rule = {
        "that": "memory.measured && memory.files == 1 && memory.compilers == 1 && memory.writable == 1"
        " && memory.patched == 0",
        "message": "as counted",
        "class": "tamper",
        "layer": "memory",
    }
    policy = ruled("required", JIT, rules={"counted": rule})
    assert appraised(policy, FILE, MADE).tier is Tier.AFFIRMING
    broken = appraised(policy, FILE)
    assert {each.kind for each in broken.reasons} == {Signal.RULE_FAILED}
    assert Tier.of(broken.vector.executables) is Tier.CONTRAINDICATED


def test_the_layer_is_claimed_in_words_that_every_authority_has_known() -> None:
    claims, _ = measured_too(FILE)
    assert claimset.decode(claimset.encode(claims, minor=0)) == claims


def test_a_policy_that_says_nothing_of_memory_is_written_as_before_there_was_any() -> None:
    assert "memory" not in POLICY.model_dump_json(by_alias=True)


@pytest.mark.parametrize("amount", ["64", "64MB", "0MiB", "64 MiB", "-1KiB", "1.5GiB"])
def test_an_amount_is_a_whole_number_with_its_unit(amount: str) -> None:
    with pytest.raises(ValueError, match="64MiB"):
        ruled("required", {**JIT, "most": amount})


@given(st.integers(1, 999_999), st.sampled_from([1 << 10, 1 << 20, 1 << 30]))
def test_an_amount_is_written_as_it_is_read(number: int, unit: int) -> None:
    text = amount_text(number * unit)
    if len(text) <= len("999999KiB"):
        assert CodeAllowance.model_validate({**JIT, "most": text}).most == number * unit


def test_a_program_that_is_allowed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="stands twice"):
        ruled("required", JIT, {**JIT, "most": "1GiB"})


@given(st.integers(1, 1 << 40))
def test_what_is_allowed_is_rounded_as_what_is_measured(amount: int) -> None:
    allowance = CodeAllowance.model_construct(executable=NODE, most=amount, writable=False, memfd=False)
    assert allowance.covers(rounded(amount), writable=False, memfd=False)
    assert not allowance.covers(2 * rounded(amount), writable=False, memfd=False)


def test_a_policy_reads_back_as_it_was_written() -> None:
    text = AttestationPolicy(metadata=POLICY.metadata, spec=ruled("required", JIT).spec).model_dump_json(by_alias=True)
    ((value, node),) = dialect.parse(text, "x")
    assert dialect.validate(value, node, AttestationPolicy, "x").spec.memory.jit[0].most == 64 * MIB
