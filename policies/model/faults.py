"""What is wrong with policy documents, and whom each fault concerns: one namespace, or everybody.

Whoever writes a namespace's documents may leave that namespace without an identity, and nobody else. So a document that
cannot be used is left out, and those for whom it would have been are known (docs/adr/0025).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from attestation.errors import InvalidConfiguration
from policies.model.metadata import NAME, Metadata, Selector

_NAMED = re.compile(NAME)
_UNSTATED = Metadata.model_fields["namespace"].default
EVERYBODY = Selector()
POLICY, REFERENCES, REGISTRATION = KINDS = "AttestationPolicy", "ReferenceValues", "WorkloadRegistration"
MOST_APART = 16
"""Faults that are held against each of many registrations by itself: no namespace makes a reload last for ever."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A document that is not in the set. name: empty where nobody can tell. selector: whom a policy would be for.

    kind: empty for what is of none that there is; then any may have been meant.
    """

    kind: str
    namespace: str
    name: str = ""
    selector: Selector = EVERYBODY

    @property
    def qualified(self) -> str:
        return self.name if self.namespace == _UNSTATED else f"{self.namespace}/{self.name}"

    def __str__(self) -> str:
        return f"{self.kind or 'document'}/{self.qualified or '?'}"


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """error: what is wrong, where, and how to mend it. document: `AttestationPolicy/payments/web`, of which it is told.

    namespace: whose document that is. Both empty where nobody can tell: then it may be anybody's. left_out: what is not
    in the set for it.
    """

    error: InvalidConfiguration
    document: str = ""
    namespace: str = ""
    left_out: tuple[LeftOut, ...] = ()

    def concerns_all(self, root: str) -> bool:
        return self.namespace in ("", root)

    @property
    def sentence(self) -> str:
        return f"{self.document}: {self.error.sentence}" if self.document else self.error.sentence


Refuse = Callable[[Fault], None]


def refused(fault: Fault) -> None:
    """One fault is enough: nothing of what was read comes into force."""
    raise fault.error


def confined(root: str, found: list[Fault]) -> Refuse:
    """Raises what concerns everybody, and collects the rest."""

    def refuse(fault: Fault) -> None:
        if fault.concerns_all(root):
            raise fault.error
        found.append(fault)

    return refuse


def unread(value: Any, error: InvalidConfiguration) -> Fault:
    """The fault of a document that cannot be read, out of what can be read of it. value: its plain YAML."""
    document = value if isinstance(value, dict) else {}
    metadata, kind = document.get("metadata"), document.get("kind")
    if not isinstance(metadata, dict) or not (namespace := _namespace(metadata)):
        return Fault(error)
    out = LeftOut(
        kind if isinstance(kind, str) and kind in KINDS else "",
        namespace,
        _name(metadata.get("name")),
        _selector(document.get("spec")),
    )
    return Fault(error, str(out), namespace, (out,))


def _namespace(metadata: dict[Any, Any]) -> str:
    """Empty where it is not stated as it has to be, or its key may be misspelt."""
    if "namespace" in metadata:
        return _name(metadata["namespace"])
    return _UNSTATED if metadata.keys() <= Metadata.model_fields.keys() else ""


def _name(value: object) -> str:
    return value if isinstance(value, str) and _NAMED.fullmatch(value) else ""


def _selector(spec: object) -> Selector:
    """Of everybody, where it cannot be read."""
    try:
        return Selector.model_validate(spec["selector"]) if isinstance(spec, dict) and "selector" in spec else EVERYBODY
    except ValidationError:
        return EVERYBODY


class Gaps:
    """What is left out of a set."""

    def __init__(self) -> None:
        self._named: dict[tuple[str, str, str], list[Fault]] = defaultdict(list)
        self._policies: dict[str, list[tuple[Selector, Fault]]] = defaultdict(list)
        self.silent: set[str] = set()
        """Namespaces some of whose registrations may not be known."""

    def add(self, fault: Fault) -> None:
        for out in fault.left_out:
            self._named[out.kind, out.namespace, out.name].append(fault)
            if out.kind in ("", POLICY):
                known = self._policies[out.namespace]
                if len(known) < MOST_APART:
                    known.append((out.selector if out.kind else EVERYBODY, fault))
                elif len(known) == MOST_APART:
                    known.append((EVERYBODY, fault))
            if out.kind in ("", REGISTRATION):
                self.silent.add(out.namespace)

    def named(self, kind: str, namespace: str, name: str) -> list[Fault]:
        """Why there is no such document, or not surely the right one."""
        return self._named.get((kind, namespace, name), [])

    def around(self, registration: Metadata) -> list[Fault]:
        """Of policies that this registration may be ruled by, and of itself."""
        selecting = self._policies.get(registration.namespace, ())
        policies = [fault for selector, fault in selecting if selector.selects(registration)]
        return [*self.named(REGISTRATION, registration.namespace, registration.name), *policies]

    def registrations(self) -> Iterable[tuple[str, Fault]]:
        """The names of those that are left out, where they can be told."""
        for (kind, _, name), faults in self._named.items():
            if kind == REGISTRATION and name:
                for fault in faults:
                    yield next(out.qualified for out in fault.left_out if out.name == name), fault
