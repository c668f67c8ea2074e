"""What is stated in policy documents and can never matter, to anybody whom they are for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator

from attestation.layers import Layer
from policies.appraise.layers import judged
from policies.author.remarks import Check, Remark
from policies.model.load import PolicySet
from policies.model.merge import Applying, Merged, Rank, merge
from policies.model.policy import AttestationPolicy, Demand, FileClasses
from policies.model.references import ReferenceValues
from policies.model.rules import Rule
from policies.model.statements import stated


def ruling(found: PolicySet) -> Iterator[Merged]:
    """Each set of policies that rules somebody, merged, and each policy by itself that rules nobody yet."""
    yield from found.merged
    used = {each.key for merged in found.merged for each in merged.applying}
    for document, origin in found.documents:
        if isinstance(document, AttestationPolicy):
            alone = Applying(document, Rank.NAMESPACE, origin)
            if not used & {(rank, *alone.key[1:]) for rank in Rank}:
                yield merge([alone])


def stated_at(merged: Merged, place: str) -> str:
    """Where this place is stated: in the policy that it comes from."""
    stated_by = merged.policy.stated_by(place)[0]
    return next(each.at(place) for each in merged.applying if each.policy.metadata.qualified == stated_by.qualified)


def unreachable(found: PolicySet, _: object) -> Iterator[Remark]:
    """A statement is idle only if it is so for everybody whom its policy is for."""
    reach: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for merged in ruling(found):
        for applying in merged.applying:
            for place, why, matters in _stated(applying, merged.policy):
                reach[applying.at(place), why].append(matters)
    for (at, why), anywhere in reach.items():
        if not any(anywhere):
            yield Remark.warning(Check.UNREACHABLE, at, why)


def _stated(applying: Applying, policy: AttestationPolicy) -> Iterator[tuple[str, str, bool]]:
    """Place, what is wrong with it should it not matter, and whether it does. policy: all that apply, merged."""
    for place in stated(applying.policy.spec):
        section, _, rest = place.partition(".")
        layer = _LAYERS.get(section)
        if layer is not None:
            yield place, f"spec.{place} is asked of nobody: the layer {layer} is off", _measured(layer, policy)
        if section == "rules":
            yield from _ruled(place, applying.policy.spec.rules[rest], policy)
        if section == "files" and rest in FileClasses.model_fields:
            yield from _patterns(place, getattr(applying.policy.spec.files, rest), policy)


_LAYERS = {
    "files": Layer.FILES,
    "processes": Layer.PROCESSES,
    "proxy": Layer.PROXY,
    "memory": Layer.MEMORY,
    "syscalls": Layer.SYSCALLS,
    "calls": Layer.SYSCALLS,
}
"""By the section of a policy, and of what rules see, that speaks of it."""


def _measured(layer: Layer, policy: AttestationPolicy) -> bool:
    return policy.spec.demand(layer) is not Demand.OFF


def _ruled(place: str, rule: Rule, policy: AttestationPolicy) -> Iterator[tuple[str, str, bool]]:
    """A rule that looks at nothing, or only at layers that are off, comes to the same answer for ever."""
    parts = {each.partition(".")[0] for each in rule.checked.seen}
    layers = [_LAYERS[each] for each in sorted(parts) if each in _LAYERS]
    yield place, f"spec.{place} looks at nothing of the workload", bool(parts)
    if layers and len(layers) == len(parts):
        off = f"spec.{place} sees nothing: of what it looks at ({', '.join(layers)}) every layer is off"
        yield place, off, any(_measured(each, policy) for each in layers)


def _patterns(place: str, patterns: Collection[str], policy: AttestationPolicy) -> Iterator[tuple[str, str, bool]]:
    for pattern in patterns:
        fixed = pattern.partition("*")[0].partition("?")[0]
        reached = any(fixed.startswith(root) or root.startswith(fixed) for root in policy.spec.files.include)
        yield place, f"the pattern {pattern!r} matches nothing that is included", reached or pattern[:1] != "/"


def _looked_at(path: str, policy: AttestationPolicy) -> bool:
    """As a file, or as code that is mapped, which may be any."""
    return judged(path, policy) or _measured(Layer.MEMORY, policy)


def unmeasured_references(found: PolicySet, _: object) -> Iterator[Remark]:
    policies_of: dict[str, dict[int, AttestationPolicy]] = defaultdict(dict)
    for governing in found.governing.values():
        policies_of[governing.references.metadata.qualified][id(governing.policy)] = governing.policy
    for document, origin in found.documents:
        policies = policies_of[document.metadata.qualified].values() if isinstance(document, ReferenceValues) else ()
        if not isinstance(document, ReferenceValues) or not policies:
            continue
        outside = [path for path in document.spec.files if not any(_looked_at(path, each) for each in policies)]
        if outside:
            yield Remark.warning(
                Check.UNREACHABLE,
                origin.at(f"ReferenceValues/{document.metadata.qualified}: spec.files[{outside[0]}]"),
                f"{len(outside)} of {len(document.spec.files)} referenced files are judged by no policy, "
                f"{outside[0]} among them",
                "Include them in `files.include`, exempt them no longer, or take them out.",
            )
