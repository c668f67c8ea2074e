"""Rules of a policy: what they see, what comes of it, and that nothing but truth affirms."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import jws, proxy
from attestation.calls import CallsMade, Watching
from attestation.claims import Claims, LayerClaim
from attestation.coverage import CollectorCoverage, Mechanism
from attestation.errors import InvalidConfiguration
from attestation.layers import Layer, Method
from attestation.manifest import DIRECTORY, LINK, OTHER
from attestation.proxy import Delivered, Denial, Known, Proxy, ProxyProcess
from attestation.tally import Offence, Tally
from attestation.trust import Tier
from authority.rules import Draft
from authority.verifier.cache import appraisal_key
from policies.appraise.appraise import appraise
from policies.appraise.reasons import Finding, Verdict
from policies.appraise.rules import Outcome, evaluate, prepare
from policies.appraise.summary import counts_files, summarise
from policies.author.confined import Limits, evaluate_confined
from policies.model.load import load
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.rules import MOST_RULES, MOST_TOTAL_COST, Rule
from policies.model.seen import MOST_KINDS, MOST_STRING, OLDEST, Summary
from sidecar.governing import read_governing
from tests.unit.policies.world import (
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


def ruled(rules: Mapping[str, Mapping[str, str]], **changes: object) -> AttestationPolicy:
    spec = POLICY.spec.model_dump(by_alias=True, mode="json") | {"rules": rules} | changes
    return POLICY.model_copy(update={"spec": PolicySpec.model_validate(spec)})


def only(that: str, **more: str) -> AttestationPolicy:
    """Under one rule, `one`."""
    return ruled({"one": {"that": that, "message": "it must be so", **more}})


def judged(policy: AttestationPolicy) -> Verdict:
    return appraise(*claimed(), governing(policy))


def found(that: str, **more: str) -> Finding:
    (finding,) = judged(only(that, **more)).reasons
    return finding


def test_a_rule_that_is_true_affirms() -> None:
    verdict = judged(only("processes.root == 1 && files.count == 2"))
    assert (verdict.tier, verdict.reasons) == (Tier.AFFIRMING, ())


def test_a_rule_that_is_false_is_told_with_what_it_saw_and_what_it_is_for() -> None:
    verdict = judged(only("processes.root == 0 && files.age <= duration('30s')"))
    (finding,) = verdict.reasons
    assert verdict.tier is Tier.CONTRAINDICATED
    assert (finding.kind, finding.finding_class, finding.layer) == ("rule-failed", "drift", Layer.ATTESTER)
    assert finding.text == ("rule one: it is false with processes.root = 1, files.age = 1s, where it must be so")
    assert finding.rule == "AttestationPolicy/hardened: spec.rules.one"
    assert finding.allow == ""


@pytest.mark.parametrize(
    ("that", "why"),
    [
        ("registration.labels.team == 'a'", "a label that is not there"),
        ("processes.kinds[1].uid == 0", "an element that is not there"),
        ("1 / (files.count - 2) == 1", "a division by zero"),
        ("files.count + 9223372036854775807 > 0", "a number beyond 64 bits"),
        ("-(files.count - 9223372036854775807 - 3) < 0", "a number beyond 64 bits"),
        ("semver(registration.name).major() == 1", "'web' is no version"),
    ],
)
def test_a_rule_that_cannot_be_evaluated_never_affirms_and_says_why(that: str, why: str) -> None:
    verdict = judged(only(that))
    (finding,) = verdict.reasons
    assert verdict.tier is Tier.CONTRAINDICATED
    assert finding.kind == "rule-error"
    assert why in finding.text


def test_what_is_false_is_of_the_class_that_the_rule_says_and_what_cannot_be_evaluated_is_drift() -> None:
    assert found("processes.root == 0", **{"class": "tamper"}).finding_class == "tamper"
    assert found("registration.labels.team == 'a'", **{"class": "tamper"}).finding_class == "drift"


@pytest.mark.parametrize(
    ("layer", "claim"),
    [("files", "file_system"), ("processes", "executables"), ("proxy", "configuration"), ("", "configuration")],
)
def test_a_rule_is_held_against_the_claim_of_its_layer(layer: str, claim: str) -> None:
    vector = judged(only("false", **({"layer": layer} if layer else {}))).vector
    worst = {name for name in ("file_system", "executables", "configuration") if getattr(vector, name) >= 96}
    assert worst == {claim}


def test_rules_are_evaluated_whatever_else_is_wrong_and_each_is_told() -> None:
    claims, bodies = claimed((entry(MAIN, "f" * 64), entry(PAGE)))
    rules = {"one": {"that": "false", "message": "m"}, "two": {"that": "1 / 0 == 1", "message": "m"}}
    kinds = [each.kind for each in appraise(claims, bodies, governing(ruled(rules))).reasons]
    assert kinds == ["file-modified", "rule-failed", "rule-error"]


# --- what they see ---


def test_the_summary_says_what_was_claimed() -> None:
    claims, bodies = claimed(
        (
            *(entry(MAIN, mode=0o4755), entry(PAGE, mode=0o666), entry("/srv/app/a", kind=LINK)),
            *(entry("/srv/app", kind=DIRECTORY), entry("/srv/app/pipe", kind=OTHER)),
        ),
        (process(), process("/usr/bin/tool", caps="200001")),
        age_ms=31_000,
        watchers=replace(
            coverage(), collectors=(CollectorCoverage("files-watch", Layer.FILES, Mechanism.FANOTIFY, 4.2, True, 7),)
        ),
    )
    seated = proxy.pack(
        Proxy(
            ProxyProcess("5" * 64, traced=Known.NO, dumpable=Known.UNKNOWN, drains_at_once=Known.YES),
            Delivered.EVERYTHING,
            Denial.IN_FORCE,
            ("rbac-inbound-http",),
            resumption_off=Known.YES,
        )
    )
    claim = LayerClaim(Layer.PROXY, proxy.digest(seated), Method.FULL, 10, 90_000_000, 1)
    references = REFERENCES.model_copy(
        update={"spec": REFERENCES.spec.model_copy(update={"proxies": {"1.40.0": ("5" * 64,)}})}
    )
    policy = ruled({}, layers={"proxy": {}})
    seen = summarise(
        replace(claims, layers=(*claims.layers, claim)),
        bodies | {claim.digest: seated},
        governing(policy, references),
    )
    holding = (
        "registration.name == 'web' && registration.namespace == 'default' && registration.labels.tier == 'front'",
        "registration.spiffeId == spiffe('spiffe://example.org/web')",
        "files.measured && files.age == duration('1m') && files.fullAge == duration('1m')",
        f"files.digest == digest('{claims.layers[0].digest}')",
        "files.count == 2 && files.links == 1 && files.folders == 1 && files.others == 1",
        "files.setuid == 1 && files.worldWritable == 1",
        "processes.measured && processes.root == 2 && processes.privileged == 1 && processes.kinds.size() == 2",
        f"processes.kinds.exists(k, k.executable == '{PYTHON}' && k.digest == digest('{GOOD[PYTHON]}'))",
        "processes.kinds.exists_one(k, 'CAP_SYS_ADMIN' in k.capabilities && 'CAP_CHOWN' in k.capabilities)",
        "processes.kinds.all(k, k.seccomp == 'off' && !k.noNewPrivileges && !k.deleted && k.uid == 0 && k.gid == 0)",
        "proxy.measured && proxy.seated && proxy.version == '1.40.0' && proxy.delivered == 'xds'",
        "proxy.fullAge == duration('400d') && proxy.age == duration('1s') && proxy.drainsAtOnce == 'yes'",
        "proxy.traced == 'no' && proxy.dumpable == 'unknown' && 'rbac-inbound-http' in proxy.filters",
        "coverage.grade == 'closed-by-guardian' && coverage.cutting == 'destroy' && 'syscalls' in coverage.absent",
        "'non-dumpable' in coverage.isolation && 'no-tracing' in coverage.isolation",
        "coverage.collectors.all(c, c.lost == 7 && c.running && c.latency == duration('5ms') && c.layer == 'files')",
    )
    outcomes = evaluate({f"r{n}": Rule(that=that, message="m") for n, that in enumerate(holding)}, seen)
    assert [each for each in outcomes if not each.holds] == []


def test_a_layer_that_policy_does_not_ask_for_is_not_seen() -> None:
    policy = ruled({}, layers={"files": {"demand": "off"}, "processes": {"demand": "off"}})
    seen = summarise(*claimed(), governing(policy))
    assert (seen.files.measured, seen.files.count, seen.files.age) == (False, 0, OLDEST)
    assert (seen.processes.measured, seen.processes.kinds, seen.proxy.seated) == (False, (), False)


def test_files_are_counted_only_for_rules_that_look_at_their_numbers() -> None:
    rules = {text: Rule(that=text, message="m") for text in ("files.measured", "files.setuid == 0", "proxy.seated")}
    assert [counts_files([rule]) for rule in rules.values()] == [False, True, False]


def summary() -> Summary:
    return summarise(*claimed(), governing())


LARGER = {
    "processes.kinds.size() < 100": lambda it: replace(
        it, processes=replace(it.processes, kinds=it.processes.kinds * (MOST_KINDS + 1))
    ),
    "registration.name == 'web' || true": lambda it: replace(
        it, registration=replace(it.registration, name="a" * (MOST_STRING + 1))
    ),
    "processes.kinds.exists(k, k.executable == '/x') || true": lambda it: replace(
        it, processes=replace(it.processes, kinds=(replace(it.processes.kinds[0], executable="/x\udcff"),))
    ),
    "files.count > 0": lambda it: replace(it, files=replace(it.files, count=2**63)),
}


@pytest.mark.parametrize("that", LARGER)
def test_what_is_larger_than_a_rule_can_see_is_never_cut_but_fails_the_rules_that_look_at_it(that: str) -> None:
    larger = LARGER[that](summary())
    looking, other = evaluate(
        {
            "looking": Rule(that=that, message="m"),
            "other": Rule(that="coverage.grade != 'closed-by-guardian'", message="m"),
        },
        larger,
    )
    assert not looking.holds
    assert looking.fault
    assert other.fault == ""


# --- where they stand ---


def test_an_appraisal_is_made_anew_where_a_rule_might_see_another_age(tmp_path: Path) -> None:
    policies = load([written(tmp_path, "    one: {that: 'files.age <= duration(\"10s\")', message: m}\n")])
    signer = jws.Signer(ec.generate_private_key(ec.SECP256R1()))
    ruling = Draft(policies).signed(1, signer).of("web")
    young, older, old = (claimed(age_ms=age)[0] for age in (1_500, 2_500, 12_000))
    assert appraisal_key(young, ruling) == appraisal_key(older, ruling)
    assert appraisal_key(young, ruling) != appraisal_key(old, ruling)


TALLY = Tally((3, 12), 11, 15, 2, (Offence("chroot", 7, "/usr/sbin/nginx", 5),), 1)


def calling(tally: Tally | None, *made: str) -> tuple[Claims, dict[str, bytes]]:
    watchers = coverage(further=(Layer.SYSCALLS,))
    claims, bodies = claimed(called=CallsMade(Watching.STRICT, made), watchers=watchers)
    return replace(claims, calls=tally), bodies


@pytest.mark.parametrize(
    ("that", "holds"),
    [
        ('"execve" in calls.made', True),
        ('"ptrace" in calls.made', False),
        ('calls.made.all(name, name in ["execve", "read"])', True),
        ("calls.rate <= 1024 && calls.peak <= 16384", True),
        ("calls.peak < 16384", False),
        ("calls.events == 2", True),
        ("calls.outside == 0", False),
        ("calls.outside == 2", True),
        ('calls.watching == "strict"', True),
    ],
)
def test_a_rule_sees_which_calls_are_made_how_fast_and_how_many_are_outside_of_the_baseline(
    that: str, holds: bool
) -> None:
    policy = ruled({"one": {"that": that, "message": "m"}}, layers={"syscalls": {}})
    references = REFERENCES.model_copy(
        update={"spec": REFERENCES.spec.model_copy(update={"syscalls": {"all": ("execve", "read")}})}
    )
    verdict = appraise(*calling(TALLY, "execve", "read"), governing(policy, references))
    assert [each.kind for each in verdict.reasons] == ([] if holds else ["rule-failed"])


def test_where_nothing_is_told_of_calls_a_rule_sees_none() -> None:
    assert judged(only("!calls.measured && calls.rate == 0 && size(calls.made) == 0")).tier is Tier.AFFIRMING


def test_how_fast_calls_are_made_is_appraised_anew_only_where_a_rule_looks_at_it(tmp_path: Path) -> None:
    signer = jws.Signer(ec.generate_private_key(ec.SECP256R1()))
    slow, fast = (calling(replace(TALLY, rate=rate), "execve")[0] for rate in (11, 12))
    for that, alike in (("calls.rate < 4096", False), ("'read' in calls.made", True)):
        policies = load([written(tmp_path, f'    one: {{that: "{that}", message: m}}\n')])
        ruling = Draft(policies).signed(1, signer).of("web")
        assert (appraisal_key(slow, ruling) == appraisal_key(fast, ruling)) is alike


def test_sidecars_are_sent_the_policy_without_its_rules(tmp_path: Path) -> None:
    policies = load([written(tmp_path, "    one: {that: files.measured, message: m}\n")])
    key = ec.generate_private_key(ec.SECP256R1())
    ruling = Draft(policies).signed(1, jws.Signer(key)).of("web")
    read = read_governing(ruling.document, key.public_key(), ruling.identity, None)
    assert ruling.policy.spec.rules.keys() == {"one"}
    assert read.policy.spec == ruling.policy.spec.model_copy(update={"rules": {}})


DOCUMENTS = """\
apiVersion: proofbeat.dev/v1alpha1
kind: AttestationPolicy
metadata: {name: NAME}
spec:
  rules:
RULES"""
REST = """\
---
apiVersion: proofbeat.dev/v1alpha1
kind: ReferenceValues
metadata: {name: web}
---
apiVersion: proofbeat.dev/v1alpha1
kind: WorkloadRegistration
metadata: {name: web}
spec: {spiffeId: spiffe://example.org/web, references: web}
"""


def written(folder: Path, *rules: str) -> Path:
    """One policy each, p0, p1, ..."""
    documents = [DOCUMENTS.replace("NAME", f"p{n}").replace("RULES", each) for n, each in enumerate(rules)]
    path = folder / "web.yaml"
    path.write_text("---\n".join(documents) + REST)
    return path


def refused(path: Path) -> str:
    with pytest.raises(InvalidConfiguration) as caught:
        load([path])
    return caught.value.sentence


def test_a_rule_that_cannot_be_run_is_refused_with_its_line_and_column_in_the_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "    one:\n      that: |\n        files.count > 0 &&\n          proceses.root == 0\n      message: m\n",
    )
    assert refused(path) == (f"{path}:9:11: spec.rules.one.that: unknown name 'proceses'. Did you mean 'processes'?")


def test_a_rule_says_what_it_is_for_by_a_name_of_one_word_and_nothing_else(tmp_path: Path) -> None:
    assert f"{tmp_path}/web.yaml:6:5: spec.rules.no-root" in refused(
        written(tmp_path, "    no-root: {that: files.measured, message: m}\n")
    )
    assert ":6:10: spec.rules.one.message: it is missing" in refused(
        written(tmp_path, "    one: {that: files.measured}\n")
    )
    assert "Did you mean 'message'?" in refused(written(tmp_path, "    one: {that: files.measured, mesage: m}\n"))


def test_rules_of_several_policies_all_hold_and_each_names_its_own(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "    one: {that: files.measured, message: m}\n    both: {that: proxy.seated, message: m}\n",
        "    two: {that: processes.measured, message: m}\n    both: {that: proxy.seated, message: m, class: drift}\n",
    )
    policy = load([path]).governing["web"].policy
    assert {name: [each.name for each in policy.stated_by(f"rules.{name}")] for name in policy.spec.rules} == {
        "one": ["p0"],
        "two": ["p1"],
        "both": ["p0", "p1"],
    }


def test_two_rules_of_one_name_are_refused_by_the_names_of_both_policies(tmp_path: Path) -> None:
    said = refused(
        written(
            tmp_path, "    one: {that: files.measured, message: m}\n", "    one: {that: files.measured, message: n}\n"
        )
    )
    assert "spec.rules.one differs between AttestationPolicy/p0" in said
    assert "AttestationPolicy/p1" in said


COSTLY = "processes.kinds.exists(p, p.executable.matches('(a|b)*c[^x]*y'))"


def test_more_rules_than_can_be_evaluated_in_time_are_refused_wherever_they_come_from(tmp_path: Path) -> None:
    many = "".join(f"    r{n}: {{that: files.measured, message: m}}\n" for n in range(MOST_RULES + 1))
    path = written(tmp_path, many)
    assert (
        refused(path) == f"{path}:4:1: spec: {MOST_RULES + 1} rules for one workload, where {MOST_RULES} are the most"
    )
    each = Rule(that=COSTLY, message="m").checked.cost
    half = MOST_TOTAL_COST // each // 2 + 1
    policies = ["".join(f'    {p}{n}: {{that: "{COSTLY}", message: m}}\n' for n in range(half)) for p in "ab"]
    said = refused(written(tmp_path, *policies))
    assert "rules that together might take" in said
    assert "merged from AttestationPolicy/p0" in said
    assert "AttestationPolicy/p1" in said


def test_all_that_is_allowed_is_taken_by_the_library_as_well() -> None:
    prepare(ruled({f"r{n}": {"that": "files.measured", "message": "m"} for n in range(MOST_RULES)}))


# --- where they run ---


def test_rules_are_evaluated_in_several_threads_at_once() -> None:
    rules = {f"r{n}": Rule(that=f"processes.kinds.all(k, k.uid != {n})", message="m") for n in range(3)}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: [each.holds for each in evaluate(rules, summary())], range(200)))
    assert found == [[False, True, True]] * 200


def test_confined_rules_come_out_as_the_others_do() -> None:
    rules = {
        name: Rule(that=that, message="m")
        for name, that in {"a": "files.measured", "b": "proxy.seated", "c": "processes.kinds[3].uid == 0"}.items()
    }
    assert list(evaluate_confined(rules, summary())) == list(evaluate(rules, summary()))


@pytest.mark.parametrize(
    ("what", "wall", "why"),
    [
        ("while True: pass", 60, "more than 1 s of CPU time"),
        ("import time; time.sleep(60)", 0.5, "it took more than 0.5 s"),
        ("x = bytearray(1 << 30)", 60, "it took more than 64 MiB"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 60, "its process ended by SIGKILL"),
    ],
)
def test_what_does_not_end_in_its_limits_is_stopped_and_affirms_nothing(what: str, wall: float, why: str) -> None:
    class Rampant(dict[str, Rule]):
        """Rules whose evaluation does this instead."""

        def values(self) -> object:  # type: ignore[override] # it never comes to that
            exec(what)  # noqa: S102 - the test's own words
            raise AssertionError

    rules = Rampant(one=Rule(that="true", message="m"))
    outcomes = evaluate_confined(rules, summary(), Limits(cpu=1, wall=wall, memory=64 << 20))
    assert [(each.name, each.holds) for each in outcomes] == [("one", False)]
    assert why in outcomes[0].fault


def test_without_rules_the_library_is_not_loaded_and_with_them_no_command_line_is() -> None:
    program = """
import sys
from policies.appraise.rules import evaluate
from policies.model.rules import Rule
loaded = {each for each in sys.modules if each.partition(".")[0] in ("cel", "prompt_toolkit", "typer")}
assert not loaded, loaded
from tests.unit.policies.test_rules import summary
sys.modules.pop("typer", None)
assert evaluate({"one": Rule(that="files.measured", message="m")}, summary())[0].holds
assert not {"prompt_toolkit", "cel.cli"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[3])


def test_an_outcome_without_a_fault_that_does_not_hold_tells_what_it_saw() -> None:
    (outcome,) = evaluate({"one": Rule(that="processes.kinds.size() == files.count", message="m")}, summary())
    assert outcome == Outcome("one", holds=False, saw="1 processes.kinds, files.count = 2")
