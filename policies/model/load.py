"""Policy documents from files: every kind, checked one by one and then against each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import BaseModel

from attestation.digests import Digest
from attestation.errors import InvalidConfiguration
from policies.model import dialect
from policies.model.places import rule
from policies.model.policy import AttestationPolicy
from policies.model.references import ReferenceValues
from policies.model.registration import WorkloadRegistration

_KINDS: dict[str, type[AttestationPolicy] | type[ReferenceValues] | type[WorkloadRegistration]] = {
    "AttestationPolicy": AttestationPolicy,
    "ReferenceValues": ReferenceValues,
    "WorkloadRegistration": WorkloadRegistration,
}
Document = AttestationPolicy | ReferenceValues | WorkloadRegistration


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a document stands: its file, its first line, and the line of each rule in it."""

    file: Path
    line: int
    lines: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def places(self) -> dict[str, str]:
        """Rule -> `web.yaml:12`. The file's name only: whoever is told does not need the authority's folders."""
        return {rule: f"{self.file.name}:{line}" for rule, line in self.lines.items()}


@dataclass(frozen=True, slots=True)
class Governing:
    """All that rules one workload: its registration and the two documents which that names.

    policy_origin, references_origin: where they were read; None for what was put together in memory.
    """

    registration: WorkloadRegistration
    policy: AttestationPolicy
    references: ReferenceValues
    policy_origin: Origin | None = None
    references_origin: Origin | None = None

    @property
    def origins(self) -> dict[str, str]:
        """Rule (as policies.appraise.reasons.rule writes it) -> file and line."""
        known = (each for each in (self.policy_origin, self.references_origin) if each is not None)
        return {rule: at for origin in known for rule, at in origin.places.items()}

    @property
    def digest(self) -> Digest:
        """Changes exactly when anything that an appraisal looks at changes."""
        return hashlib.sha256("\n".join(_canonical(each) for each in self._documents()).encode()).hexdigest()

    def _documents(self) -> tuple[BaseModel, ...]:
        return self.registration, self.policy, self.references


def _canonical(model: BaseModel) -> str:
    return model.model_dump_json(by_alias=True)


class PolicySet:
    """Every document of one authority, by kind, namespace and name. Immutable; a change is a new set."""

    def __init__(self, documents: Iterable[tuple[Document, Origin]]) -> None:
        self._found: dict[tuple[str, str, str], tuple[Document, Origin]] = {}
        for document, where in documents:
            key = (document.kind, document.metadata.namespace, document.metadata.name)
            if key in self._found:
                raise InvalidConfiguration(
                    f"{document.kind} {document.metadata.name!r} exists already in {self._found[key][1]}",
                    where=str(where),
                )
            self._found[key] = (document, where)
        self.governing: dict[str, Governing] = {
            f"{namespace}/{name}" if namespace != "default" else name: self._resolve(document, where)
            for (_, namespace, name), (document, where) in self._found.items()
            if isinstance(document, WorkloadRegistration)
        }

    def _resolve(self, registration: WorkloadRegistration, where: Origin) -> Governing:
        policy, ruled = self._named("AttestationPolicy", registration, registration.spec.policy, where)
        references, referred = self._named("ReferenceValues", registration, registration.spec.references, where)
        assert isinstance(policy, AttestationPolicy) and isinstance(references, ReferenceValues)  # noqa: S101 - the kind is in the key
        return Governing(registration, policy, references, ruled, referred)

    def _named(
        self, kind: str, registration: WorkloadRegistration, name: str, where: Origin
    ) -> tuple[Document, Origin]:
        found = self._found.get((kind, registration.metadata.namespace, name))
        if found is None:
            raise InvalidConfiguration(
                f"registration {registration.metadata.name!r} names the {kind} {name!r}, which does not exist",
                where=str(where),
                mend=f"Add a {kind} of that name in namespace {registration.metadata.namespace!r}.",
            )
        return found

    @property
    def digest(self) -> Digest:
        """Of all documents; a policy epoch is bumped when it changes."""
        ordered = (_canonical(self._found[key][0]) for key in sorted(self._found))
        return hashlib.sha256("\n".join(ordered).encode()).hexdigest()


def load(paths: Iterable[Path]) -> PolicySet:
    """Every document below the paths (files, or folders of *.yaml). Raises InvalidConfiguration with its place."""
    return PolicySet(found for path in paths for file in _files(path) for found in _documents(file))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    return [path]


def _documents(path: Path) -> Iterable[tuple[Document, Origin]]:
    for value, node in dialect.parse(dialect.read_text(path), str(path)):
        if value is not None:
            document = _document(value, node, path)
            yield document, Origin(path, node.start_mark.line + 1, _lines(document, node))


def _lines(document: Document, node: yaml.Node) -> dict[str, int]:
    """The line of each section of the document's spec, and of each entry in it."""
    found = {}
    spec = next((value for key, value in _pairs(node) if key.value == "spec"), node)
    for section, below in _pairs(spec):
        found[rule(document, section.value)] = section.start_mark.line + 1
        for entry, _ in _pairs(below):
            found[rule(document, section.value, entry.value)] = entry.start_mark.line + 1
    return found


def _pairs(node: yaml.Node) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """A map's keys and values; nothing for what is no map."""
    return node.value if isinstance(node, yaml.MappingNode) else []


def _document(value: object, node: yaml.Node, path: Path) -> Document:
    kind = value.get("kind") if isinstance(value, dict) else None
    model = _KINDS.get(str(kind))
    if model is None:
        raise InvalidConfiguration(
            f"unknown kind {kind!r}",
            where=f"{path}:{node.start_mark.line + 1}",
            mend=f"Known kinds: {', '.join(_KINDS)}.",
        )
    return dialect.validate(value, node, model, str(path))
