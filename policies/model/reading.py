"""Policy documents from files, one by one: each as its kind, with the place of all that it states."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

import yaml

from attestation.errors import InvalidConfiguration
from policies.model import dialect
from policies.model.faults import Fault, Refuse, refused, unread
from policies.model.origin import Mark, Origin
from policies.model.places import rule, step
from policies.model.policy import AttestationPolicy
from policies.model.references import ReferenceValues
from policies.model.registration import WorkloadRegistration
from policies.model.signing import Trust

_KINDS: dict[str, type[AttestationPolicy] | type[ReferenceValues] | type[WorkloadRegistration]] = {
    "AttestationPolicy": AttestationPolicy,
    "ReferenceValues": ReferenceValues,
    "WorkloadRegistration": WorkloadRegistration,
}
Document = AttestationPolicy | ReferenceValues | WorkloadRegistration


def read(
    paths: Iterable[Path], refuse: Refuse = refused, trust: Trust | None = None
) -> Iterable[tuple[Document, Origin]]:
    """The documents one by one, each checked for itself alone.

    refuse: told of each fault; what it does not raise is left out. trust: who has to have signed reference values; None
    where nobody has to.
    """
    for path in paths:
        for file in _files(path):
            try:
                yield from _documents(file, refuse, trust)
            except InvalidConfiguration as error:
                refuse(Fault(error))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    return [path]


def _documents(path: Path, refuse: Refuse, trust: Trust | None) -> Iterable[tuple[Document, Origin]]:
    text, vouched = dialect.read_text(path), False
    for value, node in dialect.parse(text, str(path)):
        if value is None:
            continue
        try:
            document = _document(value, node, path)
            if trust is not None and isinstance(document, ReferenceValues):
                where = dialect.place(str(path), node.start_mark)
                if not vouched:
                    trust.check(path, text.encode(), where)
                vouched = True
                trust.bounded(document.spec.expires, where)
        except InvalidConfiguration as error:
            refuse(unread(value, error))
        else:
            yield document, Origin(path, _mark(node), _marks(document, node))


def _mark(node: yaml.Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)


def _marks(document: Document, node: yaml.Node) -> dict[str, Mark]:
    """Where each section of the document's spec stands, and each entry in it; of a policy all that is below as well.

    What only versions state is found under the name that it has in all of them together, where the first states it.
    """
    found: dict[str, Mark] = {}
    spec = next((value for key, value in _pairs(node) if key.value == "spec"), node)
    whole = isinstance(document, AttestationPolicy)

    def take(around: str, below: yaml.Node, depth: int) -> None:
        for key, value in _pairs(below):
            place = f"{around}{step(key.value)}" if around else key.value
            found.setdefault(rule(document, place), _mark(key))
            if whole or not depth:
                take(place, value, depth + 1)

    take("", spec, 0)
    for key, versions in _pairs(spec) if isinstance(document, ReferenceValues) else ():
        for _, version in _pairs(versions) if key.value == "versions" else ():
            take("", version, 0)
    return found


def _pairs(node: yaml.Node) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """A map's keys and values; nothing for what is no map."""
    return node.value if isinstance(node, yaml.MappingNode) else []


def _document(value: object, node: yaml.Node, path: Path) -> Document:
    kind = value.get("kind") if isinstance(value, dict) else None
    model = _KINDS.get(str(kind))
    if model is None:
        near = difflib.get_close_matches(str(kind), _KINDS, n=1)
        raise InvalidConfiguration(
            f"unknown kind {kind!r}" if kind else "it does not say which kind of document it is",
            where=dialect.place(str(path), dialect.mark(node, ("kind",))),
            mend=f"Did you mean {near[0]!r}?" if near else f"Known kinds: {', '.join(_KINDS)}.",
        )
    return dialect.validate(value, node, model, str(path))
