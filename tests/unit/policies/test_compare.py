"""Saved evidence under other policies: whose verdict changes, who would close, and what cannot be told."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import evidence
from attestation.errors import InvalidInput
from attestation.layers import Layer
from policies.author import saved
from policies.author.compare import Compared, compared
from policies.author.saved import Entry, Saved
from policies.model.load import PolicySet, load
from tests.unit.policies.world import BAD, GOOD, LOADER, MAIN, PAGE, PYTHON, claimed, entry, process

KEY = ec.generate_private_key(ec.SECP256R1())


def policies(
    folder: Path, *, mode: str = "enforce", main: str = GOOD[MAIN], more: str = "", registration: str = "web"
) -> PolicySet:
    file = folder / "p.yaml"
    file.write_text(f"""\
kind: AttestationPolicy
metadata: {{name: hardened}}
spec:
  mode: {mode}
  files: {{include: [/srv/app]}}
  {more}
---
kind: ReferenceValues
metadata: {{name: web}}
spec:
  files: {{{MAIN}: {{digests: [sha256:{main}]}}, {PAGE}: {{digests: [sha256:{GOOD[PAGE]}]}}}}
  executables: {{{PYTHON}: [sha256:{GOOD[PYTHON]}], {LOADER}: [sha256:{GOOD[LOADER]}]}}
---
kind: WorkloadRegistration
metadata: {{name: {registration}}}
spec: {{spiffeId: spiffe://example.org/web, references: web}}
""")
    return load([file])


def written(folder: Path, main: str = GOOD[MAIN]) -> Path:
    """A folder with the evidence of one instance, as `proofbeat evidence save` leaves it."""
    claims, bodies = claimed((entry(MAIN, main), entry(PAGE)), (process(),))
    claims = replace(claims, leaf_key=b"k" * 91)
    signed = base64.b64encode(evidence.sign(claims, b"n" * 32, KEY, issued_at=1.0)).decode()
    saved.prepare(folder / "evidence")
    saved.write(folder / "evidence", Entry(claims.instance.value, "web", signed, 1))
    for digest, body in bodies.items():
        saved.write_body(folder / "evidence", digest, body)
    return folder / "evidence"


def compare(before: PolicySet, after: PolicySet, evidence: tuple[Saved, ...]) -> Compared:
    (found,) = compared(before, after, evidence, now=1.0)
    return found


def test_what_was_saved_is_read_as_it_was_and_only_its_owner_may_look_at_it(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (found,) = saved.read(folder)
    claims, bodies = claimed((entry(MAIN), entry(PAGE)), (process(),))
    assert (found.registration, found.claims.layers, found.bodies) == ("web", claims.layers, bodies)
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_under_the_same_policies_nothing_changes(tmp_path: Path) -> None:
    same = policies(tmp_path)
    found = compare(same, same, saved.read(written(tmp_path)))
    assert (found.changes, found.closes, found.untold) == (False, False, "")
    assert (found.before.tier, found.before.opens) == ("affirming", True)


def test_who_would_close_is_told_with_the_reason(tmp_path: Path) -> None:
    evidence = saved.read(written(tmp_path))
    found = compare(policies(tmp_path), policies(tmp_path, main=BAD), evidence)
    assert (found.changes, found.closes) == (True, True)
    assert [(each.kind, each.subject) for each in found.after.reasons] == [("file-modified", MAIN)]


def test_what_observe_would_only_note_closes_under_enforce(tmp_path: Path) -> None:
    evidence = saved.read(written(tmp_path, BAD))
    observing = policies(tmp_path, mode="observe")
    found = compare(observing, policies(tmp_path), evidence)
    assert (found.before.tier, found.after.tier) == ("contraindicated", "contraindicated")
    assert (found.before.opens, found.after.opens, found.closes) == (True, False, True)
    assert not compare(observing, policies(tmp_path, mode="audit"), evidence).closes


def test_an_instance_whose_registration_is_gone_or_unruled_closes(tmp_path: Path) -> None:
    evidence = saved.read(written(tmp_path))
    assert compare(policies(tmp_path), policies(tmp_path, registration="api"), evidence).closes
    unruled = policies(tmp_path, more="selector: {registrations: [api]}")
    assert compare(policies(tmp_path), unruled, evidence).closes


def test_a_layer_that_was_not_at_hand_leaves_it_untold_unless_nobody_judges_it(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (claim,) = (each for each in saved.read(folder)[0].claims.layers if each.layer is Layer.FILES)
    (folder / f"{claim.digest}.body").unlink()
    judging, not_judging = policies(tmp_path), policies(tmp_path, more="layers: {files: {demand: off}}")
    found = compare(judging, not_judging, saved.read(folder))
    assert found.untold == "not saved: files"
    assert compare(not_judging, not_judging, saved.read(folder)).untold == ""


@pytest.mark.parametrize("at", [0, -1], ids=["its form", "its signature"])
def test_evidence_that_was_changed_since_is_no_evidence(tmp_path: Path, at: int) -> None:
    folder = written(tmp_path)
    (file,) = folder.glob("*.json")
    entry = json.loads(file.read_text())
    signed = bytearray(base64.b64decode(entry["evidence"]))
    signed[at] ^= 1
    file.write_text(json.dumps({**entry, "evidence": base64.b64encode(signed).decode()}))
    with pytest.raises(InvalidInput, match=str(file)):
        saved.read(folder)


def test_evidence_of_another_instance_under_its_name_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (file,) = folder.glob("*.json")
    file.write_text(file.read_text().replace("i-" + "0" * 32, "i-" + "1" * 32))
    with pytest.raises(InvalidInput, match="another instance's"):
        saved.read(folder)


def test_a_layer_that_is_not_the_one_that_was_claimed_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path)
    body = next(folder.glob("*.body"))
    body.write_bytes(body.read_bytes() + b" ")
    with pytest.raises(InvalidInput, match="not the one that the evidence claims"):
        saved.read(folder)


def test_a_folder_without_evidence_says_where_one_gets_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="proofbeat evidence save"):
        saved.read(tmp_path)
