"""Which policies apply to a registration: those of the root namespace, of its own, and those that select it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from policies.model.merge import Applying, Rank
from policies.model.metadata import Metadata, Selector
from policies.model.origin import Origin
from policies.model.policy import AttestationPolicy

ROOT_NAMESPACE = "proofbeat-system"
"""Policies here are for the whole mesh: a floor that no other policy loosens."""


_Handle = str | tuple[str, str]
"""What a registration has at least one of, if a policy selects it: a name, or a label with its value."""


class Selection:
    """Every policy of one set, found by namespace and by what it selects."""

    def __init__(self, policies: Iterable[tuple[AttestationPolicy, Origin | None]], root: str = ROOT_NAMESPACE) -> None:
        self._root = root
        self._every = sorted((_applying(policy, at, root) for policy, at in policies), key=lambda each: each.key)
        self._everywhere: dict[str, list[int]] = defaultdict(list)
        self._selecting: dict[tuple[str, _Handle], list[tuple[int, Selector | None]]] = defaultdict(list)
        for number, each in enumerate(self._every):
            namespace, selector = each.policy.metadata.namespace, each.policy.spec.selector
            if selector.everything:
                self._everywhere[namespace].append(number)
            for handle in _handles(selector):
                self._selecting[namespace, handle].append((number, None if _said_by_a_handle(selector) else selector))

    @property
    def floor(self) -> tuple[Applying, ...]:
        """Those that are for everybody in every namespace."""
        return tuple([self._every[number] for number in self._everywhere.get(self._root, ())])

    def of(self, registration: Metadata) -> tuple[Applying, ...]:
        """Each once. Empty where nothing matches: then there is no identity."""
        found: set[int] = set()
        handles: tuple[_Handle, ...] = (registration.name, *registration.labels.items())
        for namespace in {self._root, registration.namespace}:
            found.update(self._everywhere.get(namespace, ()))
            for handle in handles:
                for number, selector in self._selecting.get((namespace, handle), ()):
                    if selector is None or selector.selects(registration):
                        found.add(number)
        return tuple([self._every[number] for number in sorted(found)])


def _applying(policy: AttestationPolicy, at: Origin | None, root: str) -> Applying:
    reach = Rank.NAMESPACE if policy.spec.selector.everything else Rank.WORKLOAD
    return Applying(policy, Rank.MESH if policy.metadata.namespace == root else reach, at)


def _handles(selector: Selector) -> Iterable[_Handle]:
    return selector.registrations or [*selector.match_labels.items()][:1]


def _said_by_a_handle(selector: Selector) -> bool:
    """Does the selector ask for nothing else than what it is found by?"""
    return not selector.match_labels if selector.registrations else len(selector.match_labels) == 1
