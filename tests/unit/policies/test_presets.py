"""The presets: ordinary documents that load, say why beside each value, and undercut each other nowhere."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from attestation.errors import InvalidInput
from attestation.signals import Signal
from attestation.violation import ViolationClass
from policies.author import presets
from policies.author.check import check
from policies.model.classes import FileClass, class_of
from policies.model.load import load
from policies.model.policy import AttestationPolicy, Mode
from policies.model.selection import ROOT_NAMESPACE
from policies.model.statements import Stated, joined, stated
from proofbeat.authoring.preset import run

NAMES = ["baseline", "hardened", "hipaa", "payments"]
STRICT = ["hardened", "hipaa", "payments"]
CLAUSE = {"payments": r"\b[1-9][0-2]?\.\d+\.\d+\b", "hipaa": r"\b164\.3\d\d\([a-e]\)"}
"""How PCI DSS numbers its requirements, and the Code of Federal Regulations its paragraphs."""


WEB = """\
kind: AttestationPolicy
metadata: {name: web}
spec:
  files: {include: [/srv/app]}
---
kind: ReferenceValues
metadata: {name: web}
---
kind: WorkloadRegistration
metadata: {name: web}
spec: {spiffeId: spiffe://example.org/web, references: web}
"""


def file(name: str) -> Path:
    return presets.preset(name).file


def policy(name: str) -> AttestationPolicy:
    documents = [document for document, _ in load([file(name)]).documents]
    (document,) = documents
    assert isinstance(document, AttestationPolicy)
    return document


def values(found: Stated) -> dict[str, object]:
    return {place: statement.value for place, statement in found.items()}


def fields(node: yaml.Node, place: str = "spec") -> Iterator[tuple[str, int]]:
    """Each field that has a value of its own, with its line, counted from 0. A rule is one value; so is onViolation."""
    if isinstance(node, yaml.SequenceNode) and any(isinstance(each, yaml.MappingNode) for each in node.value):
        for each in node.value:
            yield from fields(each, place)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = f"{place}.{key.value}"
            whole = place == "spec.rules" or inner == "spec.onViolation"
            below = [] if whole else list(fields(value, inner))
            yield from below or [(inner, key.start_mark.line)]


def comments(name: str) -> dict[str, str]:
    """Field -> what is said right above it."""
    text = file(name).read_text()
    lines = text.splitlines()
    spec = next(value for key, value in yaml.compose(text).value if key.value == "spec")
    return {place: " ".join(_above(lines, line)) for place, line in fields(spec)}


def _above(lines: list[str], line: int) -> list[str]:
    found: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].strip().removeprefix("#").strip())
    return found


def test_these_are_the_presets_each_with_what_it_is_for() -> None:
    found = presets.presets()
    assert [each.name for each in found] == NAMES
    assert all(each.about.endswith(".") and each.text == file(each.name).read_text() for each in found)


@pytest.mark.parametrize("name", ["paymets", "../model/policy", "__init__", ""])
def test_a_name_that_no_preset_has_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(InvalidInput, match="baseline, hardened, hipaa, payments"):
        presets.preset(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_floor_for_everybody_about_which_there_is_no_doubt(name: str) -> None:
    document = policy(name)
    assert (document.metadata.name, document.metadata.namespace) == (name, ROOT_NAMESPACE)
    assert document.spec.selector.everything
    assert check([file(name)]).remarks == ()


@pytest.mark.parametrize("name", NAMES)
def test_each_value_has_its_reason_right_above_it(name: str) -> None:
    assert [place for place, said in comments(name).items() if len(said.split()) < 2] == []


@pytest.mark.parametrize("name", STRICT)
def test_a_strict_preset_has_tampered_workloads_stand_still_and_kills_nothing(name: str) -> None:
    """Whoever can fake a tamper could end workloads; and what drifted has to run to be repaired."""
    contained = policy(name).spec.containment
    assert (contained.tamper, contained.drift, contained.forensics) == ("freeze", "none", "tamper")
    assert "containment" in policy(name).spec.model_fields_set


@pytest.mark.parametrize("name", CLAUSE)
def test_each_value_of_a_preset_for_a_regulation_names_the_clause_that_it_supports(name: str) -> None:
    assert [place for place, said in comments(name).items() if not re.search(CLAUSE[name], said)] == []


@pytest.mark.parametrize("name", STRICT)
def test_the_others_are_nowhere_looser_than_the_baseline(name: str) -> None:
    strict, baseline = stated(policy(name).spec), stated(policy("baseline").spec)
    assert baseline.keys() <= strict.keys()
    assert values(joined(strict, baseline)) == values(strict)


@pytest.mark.parametrize("name", STRICT)
def test_they_enforce_attest_envoy_and_let_nobody_break_the_glass_alone(name: str) -> None:
    spec = policy(name).spec
    assert spec.mode is Mode.ENFORCE
    assert {str(layer): str(each.demand) for layer, each in spec.layers.items()} == dict.fromkeys(
        ["files", "processes", "proxy"], "required"
    )
    assert spec.break_glass.quorum >= 2
    assert spec.break_glass.operators == ()
    assert not spec.holds and "max_unavailable" in spec.model_fields_set, "and let nobody below hold anything open"


def test_a_workload_may_be_under_several_of_them_and_the_strictest_value_of_each_field_holds(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(WEB)
    spec = load([*map(file, NAMES), tmp_path]).governing["web"].policy.spec
    assert (spec.interval, spec.escalate_after, spec.processes.most_capabilities) == (10.0, 0.02, "0")
    assert (spec.recovery.drift, spec.recovery.tamper, spec.break_glass.longest) == ("auto", "manual", 1800.0)
    assert {*spec.rules} == {"noRoot", "noSetuid", "noWorldWritable"}


@pytest.mark.parametrize("name", STRICT)
def test_what_is_tamper_stays_tamper_whatever_a_policy_below_calls_it(name: str, tmp_path: Path) -> None:
    tampers = [each for each in Signal if each.default is ViolationClass.TAMPER and not each.fixed]
    lowered = ", ".join(f"{each}: drift" for each in tampers)
    (tmp_path / "web.yaml").write_text(WEB.replace("spec:\n", f"spec:\n  onViolation: {{{lowered}}}\n", 1))
    spec = load([file(name), tmp_path]).governing["web"].policy.spec
    assert {spec.violation_class(each) for each in tampers} == {ViolationClass.TAMPER}


@pytest.mark.parametrize("name", STRICT)
def test_compiled_code_beside_its_source_stays_code_under_any_exemption_of_others(name: str, tmp_path: Path) -> None:
    """Whoever changes a .pyc has foreign code run, and nobody executes a file for that."""
    exempting = WEB.replace("include: [/srv/app]", 'include: [/srv/app], caches: ["__pycache__/**", "**"]')
    (tmp_path / "web.yaml").write_text(exempting)
    files = load([file(name), tmp_path]).governing["web"].policy.spec.files
    assert class_of("/srv/app/__pycache__/main.cpython-311.pyc", files) is FileClass.CODE
    assert class_of("/var/cache/app/index", files) is FileClass.CACHES


def test_a_program_reads_them_as_a_person_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert asyncio.run(run("payments", as_json=False))
    assert capsys.readouterr().out == file("payments").read_text()
    assert asyncio.run(run(None, as_json=True))
    told = json.loads(capsys.readouterr().out)["presets"]
    assert [each["name"] for each in told] == NAMES
    assert told[3]["text"] == file("payments").read_text()
