"""Which policies apply to a registration: those of the root namespace, of its own, and those that select it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from policies.model.merge import Applying, Rank
from policies.model.metadata import Metadata
from policies.model.origin import Origin
from policies.model.policy import AttestationPolicy

ROOT_NAMESPACE = "proofbeat-system"
"""Policies here are for the whole mesh: a floor that no other policy loosens."""


class Selection:
    """Every policy of one set, found by namespace and by what it selects."""

    def __init__(self, policies: Iterable[tuple[AttestationPolicy, Origin | None]], root: str = ROOT_NAMESPACE) -> None:
        self._root = root
        self._everywhere: dict[str, list[Applying]] = defaultdict(list)
        self._selecting: dict[tuple[str, str], list[Applying]] = defaultdict(list)
        for policy, at in policies:
            namespace, everything = policy.metadata.namespace, policy.spec.selector.everything
            reach = Rank.NAMESPACE if everything else Rank.WORKLOAD
            applying = Applying(policy, Rank.MESH if namespace == root else reach, at)
            for places in [self._everywhere[namespace]] if everything else self._handled(policy):
                places.append(applying)

    def _handled(self, policy: AttestationPolicy) -> Iterable[list[Applying]]:
        return [self._selecting[policy.metadata.namespace, handle] for handle in _handles(policy)]

    def of(self, registration: Metadata) -> tuple[Applying, ...]:
        """Each once. Empty where nothing matches: then there is no identity."""
        found: dict[tuple[int, str, str], Applying] = {}
        for namespace in dict.fromkeys((self._root, registration.namespace)):
            for each in self._everywhere.get(namespace, ()):
                found[each.key] = each
            for handle in (registration.name, *(f"{key}={value}" for key, value in registration.labels.items())):
                for each in self._selecting.get((namespace, handle), ()):
                    if each.policy.spec.selector.selects(registration):
                        found[each.key] = each
        return tuple(found[key] for key in sorted(found))


def _handles(policy: AttestationPolicy) -> Iterable[str]:
    """What a registration has at least one of, if the policy selects it."""
    selector = policy.spec.selector
    if selector.registrations:
        return selector.registrations
    key, value = next(iter(selector.match_labels.items()))
    return (f"{key}={value}",)
