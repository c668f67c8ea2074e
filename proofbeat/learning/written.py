"""The folder that is written, and what was written before.

`policies/` in it is what an authority reads; beside it lie the profile in both forms, and what everything came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from attestation.errors import InvalidInput
from policies.author.learning import learned as form
from policies.author.learning import outcome, seccomp
from policies.author.learning.learned import Learned
from policies.author.learning.remarks import standing
from policies.model import dialect
from policies.model.memory import amount_text
from policies.model.metadata import Metadata
from policies.model.references import ReferenceValues
from policies.model.registration import RegistrationSpec, WorkloadRegistration
from policies.model.writing import comment, reference_values
from proofbeat import documents
from proofbeat.authoring.writing import write, write_references
from proofbeat.learning.wishes import Place

POLICIES = "policies"
SECCOMP, OPERATORS = "seccomp.json", "seccomp-profile.yaml"


def read(path: Path) -> Learned:
    """What was learned before. path: such a folder, or the file in it. Raises InvalidInput."""
    file = path / form.FILE if path.is_dir() else path
    return form.read(dialect.read_text(file), str(file))


def write_all(name: str, learned: Learned, values: ReferenceValues, place: Place) -> list[Path]:
    """What was written, in that order. Raises InvalidInput where it cannot be."""
    folder = place.output
    _make(folder / POLICIES)
    ruled, referenced = folder / POLICIES / f"{name}.yaml", folder / POLICIES / f"{name}-references.yaml"
    about = "".join(f"{line}\n" for line in _about(learned))
    ruling = yaml.safe_dump(outcome.document(name, learned, place.mode, notified=bool(place.listener)), sort_keys=False)
    write(ruled, about + "---\n".join([ruling, *_registered(name, place)]))
    write_references(referenced, reference_values(values, outcome.origins(learned)), values.metadata.qualified)
    profile = seccomp.asking(learned, place.listener) if place.listener else seccomp.profile(learned)
    write(folder / SECCOMP, json.dumps(profile, indent=1) + "\n")
    write(folder / OPERATORS, yaml.safe_dump(seccomp.operators(name, profile), sort_keys=False))
    write(folder / form.FILE, form.text(learned))
    return [ruled, referenced, folder / SECCOMP, folder / OPERATORS, folder / form.FILE]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"the folder cannot be made: {error.strerror}", where=str(folder)) from error


def _registered(name: str, place: Place) -> list[str]:
    if not place.spiffe_id:
        return []
    spec = RegistrationSpec(spiffe_id=place.spiffe_id, references=name)
    return [documents.to_yaml(WorkloadRegistration(metadata=Metadata(name=name), spec=spec))]


def _about(learned: Learned) -> Iterator[str]:
    """Where a policy's values come from, above it."""
    for run in learned.runs:
        yield comment(f"Learned of {run.of}, {run.id}, {run.seconds:.0f} s; {standing(run)}.")
    for path, each in learned.code.items():
        kinds = f"{'writable' if each.writable else 'not writable'}, {'memfd' if each.memfd else 'no memfd'}"
        yield comment(f"{path} had {amount_text(each.most)} of code of no file at most, {kinds}.")
