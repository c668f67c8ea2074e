"""Everything that is wrong, or looks so, with a set of policy documents; an authority tells only the first error."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attestation.layers import Layer
from attestation.quantities import duration, instant_text
from policies.appraise.appraise import JUDGED
from policies.author.exempt import code_exempt, never_executed
from policies.author.reach import ruling, stated_at, unmeasured_references, unreachable
from policies.author.remarks import Check, Level, Remark
from policies.model.classes import UNREAD, class_of
from policies.model.dialect import faults_of
from policies.model.faults import Fault
from policies.model.load import PolicySet
from policies.model.policy import AttestationPolicy, Demand
from policies.model.reading import read
from policies.model.references import ReferenceValues
from policies.model.registration import WorkloadRegistration
from policies.model.selection import ROOT_NAMESPACE
from policies.model.signing import Trust


@dataclass(frozen=True, slots=True)
class Terms:
    """root: the root namespace. Seconds: failover, that the authority may be away; skew, between any two clocks.

    now: Unix seconds; 0 for a time before anything expires. trust_domain: the authority's; None for any. trust: who
    has to have signed reference values; None where nobody has to.
    """

    root: str = ROOT_NAMESPACE
    failover: float = 15.0
    skew: float = 5.0
    now: float = 0.0
    trust_domain: str | None = None
    trust: Trust | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """policies: what of the documents could be read. remarks: in the sequence of their places."""

    policies: PolicySet
    remarks: tuple[Remark, ...]

    def count(self, level: Level) -> int:
        return sum(each.level is level for each in self.remarks)


def check(paths: Iterable[Path], terms: Terms | None = None) -> Report:
    """What several documents mean together is looked at once each of them can be read."""
    terms = terms or Terms()
    faults: list[Fault] = []
    documents = list(read(paths, faults.append, terms.trust))
    found = PolicySet(() if faults else documents, terms.root, faults.append, terms.trust_domain)
    errors = (each for fault in faults for each in faults_of(fault.error))
    remarks = {*map(Remark.of, errors), *(each for looked in _LOOKS for each in looked(found, terms))}
    return Report(found, tuple(sorted(remarks, key=lambda each: (each.place, each.level, each.text))))


# --- documents and what they are for ---


def _conflicts(found: PolicySet, _: Terms) -> Iterator[Remark]:
    for merged in found.merged:
        for each in merged.conflicts:
            yield Remark.warning(
                Check.CONFLICT,
                each.other.at(each.place),
                str(each),
                "State it in one of them, or give one of them a selector.",
            )


def _unruled(found: PolicySet, _: Terms) -> Iterator[Remark]:
    for document, origin in found.documents:
        if isinstance(document, WorkloadRegistration) and document.metadata.qualified in found.unruled:
            yield Remark.warning(
                Check.UNRULED,
                str(origin),
                f"no policy is for the registration {document.metadata.qualified!r}: it gets no identity",
                "Write an AttestationPolicy whose selector chooses it, or one for its whole namespace.",
            )


def _unused(found: PolicySet, terms: Terms) -> Iterator[Remark]:
    registered = [each for each, _ in found.documents if isinstance(each, WorkloadRegistration)]
    if not registered:
        return  # policies alone, to be used beside others
    applied = {each.key[1:] for one in registered for each in found.selection.of(one.metadata)}
    referred = _referred(found, registered)
    for document, origin in found.documents:
        meta = document.metadata
        if isinstance(document, AttestationPolicy):
            named = _named_in_vain(document, registered, terms.root)
            for name, near in named:
                yield Remark.warning(
                    Check.SELECTS_NOTHING,
                    origin.at(f"AttestationPolicy/{meta.qualified}: spec.selector.registrations"),
                    f"its selector names {name!r}, and no registration here has that name",
                    f"Did you mean {near!r}?" if near else "",
                )
            if (meta.namespace, meta.name) not in applied and not named:
                yield _idle(document, origin.at(f"AttestationPolicy/{meta.qualified}: spec.selector"))
        if isinstance(document, ReferenceValues) and (meta.namespace, meta.name) not in referred:
            yield Remark.warning(
                Check.UNUSED, str(origin), f"nothing names the ReferenceValues {meta.qualified!r}, nor inherits it"
            )


def _referred(found: PolicySet, registered: Sequence[WorkloadRegistration]) -> set[tuple[str, str]]:
    """Namespace and name of all reference values that some registration names, with those that they inherit."""
    parents = {
        (each.metadata.namespace, each.metadata.name): [
            (parent.rpartition("/")[0] or each.metadata.namespace, parent.rpartition("/")[2])
            for parent in each.spec.inherits
        ]
        for each, _ in found.documents
        if isinstance(each, ReferenceValues)
    }
    referred: set[tuple[str, str]] = set()
    wanted = [(each.metadata.namespace, each.spec.references) for each in registered]
    while wanted:
        one = wanted.pop()
        if one not in referred:
            referred.add(one)
            wanted += parents.get(one, [])
    return referred


def _named_in_vain(
    policy: AttestationPolicy, registered: Sequence[WorkloadRegistration], root: str
) -> list[tuple[str, str]]:
    """Names in its selector that no registration has, each with the nearest that one has."""
    namespace = policy.metadata.namespace
    if not policy.spec.selector.registrations:
        return []
    there = [each.metadata.name for each in registered if namespace in (root, each.metadata.namespace)]
    missing = [name for name in policy.spec.selector.registrations if name not in there]
    return [(name, next(iter(difflib.get_close_matches(name, there, n=1)), "")) for name in missing]


def _idle(policy: AttestationPolicy, place: str) -> Remark:
    name = policy.metadata.qualified
    if policy.spec.selector.everything:
        return Remark.warning(Check.UNUSED, place, f"no registration is in the namespace of the policy {name!r}")
    return Remark.warning(Check.SELECTS_NOTHING, place, f"the selector of {name!r} chooses no registration")


# --- what cannot work ---


def _unmeetable(found: PolicySet, _: Terms) -> Iterator[Remark]:
    for merged in ruling(found):
        for layer in Layer:
            if layer not in JUDGED and merged.policy.spec.demand(layer) is Demand.REQUIRED:
                yield Remark.warning(
                    Check.UNMEETABLE,
                    stated_at(merged, f"layers.{layer}"),
                    f"the layer {layer} is required, and nothing measures it: nobody under this gets an identity",
                    f"Layers that are measured: {', '.join(JUDGED)}.",
                )


def _measures_nothing(found: PolicySet, _: Terms) -> Iterator[Remark]:
    in_force = list(found.merged)
    for merged in ruling(found):
        policy = merged.policy
        if policy.spec.demand(Layer.FILES) is Demand.OFF:
            continue
        if not policy.spec.files.include and merged in in_force:
            yield Remark.warning(
                Check.MEASURES_NOTHING,
                stated_at(merged, "files"),
                "files are asked for, and no policy says which: `files.include` is empty",
                "Include the folders of the program, or write `layers: {files: {demand: off}}`.",
            )
        for root in policy.spec.files.include:
            classes = {class_of(f"{root.rstrip('/')}/{probe}", policy.spec.files) for probe in _PROBES}
            if classes <= UNREAD:
                yield Remark.warning(
                    Check.MEASURES_NOTHING,
                    stated_at(merged, f"files.{min(classes)}"),
                    f"everything below {root} is exempt: nothing of it is judged",
                    "Exempt what changes, by narrower patterns.",
                )


_PROBES = tuple("/".join(["\N{SNOWMAN}"] * depth) for depth in (1, 2, 3, 9))
"""Names that no pattern means by name."""


def _freshness(found: PolicySet, terms: Terms) -> Iterator[Remark]:
    for merged in ruling(found):
        spec = merged.policy.spec
        least = 3 * spec.interval + terms.failover + terms.skew
        if spec.freshness < least:
            yield Remark.warning(
                Check.FRESHNESS_SHORT,
                stated_at(merged, "freshness"),
                f"a freshness of {duration(spec.freshness)} is less than three intervals of {duration(spec.interval)}, "
                f"a fail-over of {duration(terms.failover)} and a skew of {duration(terms.skew)}: "
                "traffic closes when the authority is away for that long",
                f"Make it {duration(least)} or more, or state what you count on by --failover and --skew.",
            )


_SOON = 14 * 86_400.0
"""As the authority's log begins to tell of it."""


def _expiring(found: PolicySet, terms: Terms) -> Iterator[Remark]:
    for document, origin in found.documents:
        expires = document.spec.expires if isinstance(document, ReferenceValues) else None
        if expires is None or terms.now < expires - _SOON:
            continue
        name = document.metadata.qualified
        yield Remark.warning(
            Check.EXPIRED if terms.now >= expires else Check.EXPIRING,
            origin.at(f"ReferenceValues/{name}: spec.expires"),
            f"the ReferenceValues {name!r} {'have expired' if terms.now >= expires else 'expire'} "
            f"at {instant_text(expires)}",
            "Build them anew, or look through them, and state a later `expires`.",
        )


_LOOKS: tuple[Callable[[PolicySet, Terms], Iterable[Remark]], ...] = (
    _conflicts,
    _unruled,
    _unused,
    unreachable,
    unmeasured_references,
    _unmeetable,
    _measures_nothing,
    code_exempt,
    never_executed,
    _freshness,
    _expiring,
)
