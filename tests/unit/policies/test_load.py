"""Policy documents: what is read, and what a reader of the error learns."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation.errors import InvalidConfiguration
from attestation.layers import Layer
from policies.model.dialect import faults_of
from policies.model.faults import Fault
from policies.model.load import PolicySet, load
from policies.model.places import place, rule
from policies.model.policy import Demand, Mode
from policies.model.reading import read

POLICY = """\
apiVersion: proofbeat.dev/v1alpha1
kind: AttestationPolicy
metadata: {name: hardened}
spec:
  mode: enforce
  interval: 10s
  freshness: 60s
  files: {include: [/srv/app]}
"""
REFERENCES = """\
apiVersion: proofbeat.dev/v1alpha1
kind: ReferenceValues
metadata: {name: web}
spec:
  files: {/srv/app/main.py: {digests: [sha256:%s]}}
""" % ("a" * 64)
REGISTRATION = """\
apiVersion: proofbeat.dev/v1alpha1
kind: WorkloadRegistration
metadata: {name: web}
spec: {spiffeId: spiffe://example.org/web, references: web}
"""


def written(folder: Path, *documents: str) -> Path:
    file = folder / "web.yaml"
    file.write_text("---\n".join(documents))
    return file


def fault(folder: Path, *documents: str) -> str:
    with pytest.raises(InvalidConfiguration) as raised:
        load([written(folder, *documents)])
    return raised.value.sentence


def test_a_registration_is_resolved_to_its_policy_and_references(tmp_path: Path) -> None:
    governing = load([written(tmp_path, POLICY, REFERENCES, REGISTRATION)]).governing["web"]
    assert governing.policy.spec.mode is Mode.ENFORCE
    assert governing.policy.spec.freshness == 60.0
    assert governing.references.spec.files["/srv/app/main.py"].digests == ("a" * 64,)


def test_the_digest_changes_with_any_document(tmp_path: Path) -> None:
    one = load([written(tmp_path, POLICY, REFERENCES, REGISTRATION)]).governing["web"].digest
    other = load([written(tmp_path, POLICY.replace("60s", "61s"), REFERENCES, REGISTRATION)]).governing["web"].digest
    assert one != other


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known_one(tmp_path: Path) -> None:
    said = fault(tmp_path, POLICY.replace("freshness: 60s", "freshnes: 60s"))
    assert "web.yaml:7:3" in said
    assert "'freshness'" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("10s", "10"), "a duration has a unit"),
        (("10s", "40s"), "at least twice the interval"),
        (("[/srv/app]", "[srv/app]"), "absolute paths"),
        (("enforce", "strict"), "mode"),
        (("name: hardened", "name: Hardened"), "name"),
        (("kind: AttestationPolicy", "kind: Policy"), "Known kinds"),
        (("mode: enforce", "mode: enforce\n  mode: audit"), "stands twice"),
        (("spec:", "spec: ["), "web.yaml"),
    ],
)
def test_each_mistake_has_a_message_of_its_own(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    assert words in fault(tmp_path, POLICY.replace(*change))


@pytest.mark.parametrize(
    "identity",
    ["spiffe://example.org", "spiffe://example.org/proofbeat/authority", "https://example.org/web", "spiffe://UP/web"],
)
def test_an_identity_that_cannot_be_registered_is_refused(tmp_path: Path, identity: str) -> None:
    said = fault(tmp_path, POLICY, REFERENCES, REGISTRATION.replace("spiffe://example.org/web", identity))
    assert "spiffeId" in said


def test_a_registration_that_no_policy_is_for_is_ruled_by_none(tmp_path: Path) -> None:
    elsewhere = POLICY.replace("mode: enforce", "selector: {registrations: [api]}")
    found = load([written(tmp_path, elsewhere, REFERENCES, REGISTRATION)])
    assert found.governing == {}
    assert set(found.unruled) == {"web"}


def test_a_registration_that_names_missing_references_says_which(tmp_path: Path) -> None:
    assert "'web', which does not exist" in fault(tmp_path, POLICY, REGISTRATION)


def test_a_layer_is_switched_off_by_the_word_off_without_quotes(tmp_path: Path) -> None:
    off = POLICY + "  layers: {files: {demand: off}}\n"
    governing = load([written(tmp_path, off, REFERENCES, REGISTRATION)]).governing["web"]
    assert governing.policy.spec.demand(Layer.FILES) is Demand.OFF


def test_two_documents_of_one_name_are_refused(tmp_path: Path) -> None:
    assert "exists already" in fault(tmp_path, POLICY, POLICY)


def test_a_reference_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"absent\.yaml: the file cannot be read"):
        load([tmp_path / "absent.yaml"])


def test_a_file_without_an_end_is_refused_and_not_read_to_it() -> None:
    with pytest.raises(InvalidConfiguration, match="too large"):
        load([Path("/dev/zero")])


def test_every_rule_knows_its_file_and_line_whatever_the_order_of_documents(tmp_path: Path) -> None:
    governing = load([written(tmp_path, REGISTRATION, REFERENCES, POLICY)]).governing["web"]
    lines = (tmp_path / "web.yaml").read_text().splitlines()

    def line(stated: str) -> str:
        file, _, number = place(stated, governing.origins).rpartition(":")
        assert file == "web.yaml"
        return lines[int(number) - 1].strip()

    assert line(rule(governing.policy, "files.include")).startswith("files: {include:")
    assert line(rule(governing.policy, "interval")) == "interval: 10s"
    assert line(rule(governing.references, "files", "/srv/app/main.py")).startswith("files: {/srv/app/main.py:")
    assert place(rule(governing.references, "executables"), governing.origins) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: a\nname: \x00\n", "web.yaml:2:7: this is not YAML: special characters"),
        ('kind: "\\0"\n', "NUL"),
        ("? [a]\n: b\n", "cannot be read"),
        ("!!int ''\n", "cannot be read"),
        ("[" * 1500, "nested deeper than 32"),
        ("? " * 1500, "nested deeper than 32"),
        ("a: &a {x: 1}\nb: *a\n", "web.yaml:2:4: an alias"),
        ("b: {<<: {x: 1}}\n", ":merge"),
        (POLICY.replace("mode: enforce", "layers: {files: {maxAgee: 10s}}"), "'maxAge'"),
        (POLICY.replace("60s", "9" * 400 + "d"), "within a century"),
        (POLICY.replace("10s", "1.0004s"), "whole number of milliseconds"),
        (POLICY.replace("10s", "1" * 21), "web.yaml:6:13: no integer of at most 20 digits"),
        (POLICY.replace("10s", "0x" + "f" * 19), "no integer of at most 20 digits"),
        (POLICY.replace("10s", '!!int "1:1:1"'), "no integer"),
        (POLICY.replace("10s", '!!float "1:1:1"'), "no number"),
        ("kind: 1:1:1\n", "unknown kind '1:1:1'"),
        ("kind: AttestationPolcy\n", "unknown kind 'AttestationPolcy'. Did you mean 'AttestationPolicy'?"),
        ("metadata: {name: web}\n", "it does not say which kind of document it is. Known kinds: AttestationPolicy"),
        ("kind: 0x" + "f" * 5000 + "\n", "web.yaml:1:7: no integer of at most 20 digits"),
        (POLICY.replace("/srv/app", '"/\\uD800"'), "invalid Unicode character"),
        (REFERENCES.replace("digests:", "uid: -1, digests:"), "uid: it must be greater than or equal to 0"),
        (REFERENCES.replace("digests:", f"gid: {2**32}, digests:"), "gid: it must be less than or equal to 42949"),
    ],
)
def test_what_yaml_can_hold_and_a_document_cannot_is_told_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    said = fault(tmp_path, text)
    assert words in said
    assert "web.yaml" in said


def faults(file: Path) -> list[str]:
    """Every fault, where each is told instead of only the first."""
    found: list[Fault] = []
    PolicySet(read([file], found.append), refuse=found.append)
    return [each.sentence for fault in found for each in faults_of(fault.error)]


def test_every_fault_of_every_document_is_told_where_somebody_asks_for_all(tmp_path: Path) -> None:
    wrong = POLICY.replace("10s", "10").replace("mode: enforce", "mode: strict\n  freshnes: 1s")
    file = written(tmp_path, wrong, "kind: Nonsense\n", REGISTRATION.replace("name: web", "nmae: web"), "a: [")
    told = [each.removeprefix(f"{tmp_path}/") for each in faults(file)]
    assert [each.split(": ")[0] for each in told] == [
        "web.yaml:6:3",
        "web.yaml:5:3",
        "web.yaml:7:3",
        "web.yaml:11:1",
        "web.yaml:15:12",
        "web.yaml:18:5",
    ]
    assert "'freshness'" in told[0]
    assert "missing" not in told[4], "a mistyped key is not told again as missing under its right name"


def test_of_a_document_with_faults_without_end_a_hundred_are_told(tmp_path: Path) -> None:
    told = faults(written(tmp_path, POLICY + "".join(f"  k{number}: 1\n" for number in range(130))))
    assert len(told) == 101
    assert "30 more faults of this document are not told" in told[-1]


def test_what_several_documents_have_wrong_together_is_told_of_each(tmp_path: Path) -> None:
    file = written(tmp_path, POLICY, POLICY, REGISTRATION, REGISTRATION.replace("name: web", "name: api"))
    told = faults(file)
    assert [each.split(": ")[0].rpartition("/")[2] for each in told] == [
        "web.yaml:10:1",
        "web.yaml:22:44",
        "web.yaml:27:44",
    ]


def test_an_identity_that_another_namespace_has_registered_is_refused_and_both_are_named(tmp_path: Path) -> None:
    stranger = REGISTRATION.replace("name: web", "name: mine, namespace: evil")
    (said,) = faults(written(tmp_path, POLICY, REFERENCES, REGISTRATION, stranger))
    assert said.startswith(f"{tmp_path}/web.yaml:24:8: ")
    assert "'evil/mine'" in said and "'web'" in said and "spiffe://example.org/web" in said


def test_two_registrations_of_one_namespace_may_share_an_identity(tmp_path: Path) -> None:
    canary = REGISTRATION.replace("name: web", "name: canary")
    assert set(load([written(tmp_path, POLICY, REFERENCES, REGISTRATION, canary)]).governing) == {"web", "canary"}


def test_an_identity_of_another_trust_domain_is_refused_with_its_place(tmp_path: Path) -> None:
    file = written(tmp_path, POLICY, REFERENCES, REGISTRATION)
    assert set(load([file], trust_domain="example.org").governing) == {"web"}
    with pytest.raises(InvalidConfiguration) as raised:
        load([file], trust_domain="town.example")
    assert raised.value.where.startswith(f"{file}:19:8")
    assert "'example.org'" in raised.value.sentence and "'town.example'" in raised.value.sentence


def test_policies_that_cannot_be_merged_are_told_with_the_line_of_a_value(tmp_path: Path) -> None:
    floor = POLICY.replace("name: hardened", "name: floor, namespace: proofbeat-system").replace("interval: 10s", "")
    own = POLICY.replace("freshness: 60s", "")
    (said,) = faults(written(tmp_path, own, floor.replace("60s", "15s"), REFERENCES, REGISTRATION))
    assert said.startswith(f"{tmp_path}/web.yaml:6:3: freshness must be at least twice the interval")
    assert "AttestationPolicy/proofbeat-system/floor" in said


def test_each_value_of_a_policy_knows_its_line_and_column_however_deep_it_stands(tmp_path: Path) -> None:
    text = POLICY + "  layers:\n    files:\n      demand: required\n      maxAge: 5s\n"
    ((_, origin),) = read([written(tmp_path, text)])
    assert origin.at("AttestationPolicy/hardened: spec.layers.files.maxAge").endswith("web.yaml:12:7")
    assert origin.at("AttestationPolicy/hardened: spec.layers.files.fullMaxAge").endswith("web.yaml:10:5")
    assert origin.at("AttestationPolicy/hardened: spec.processes").endswith("web.yaml:1:1")
