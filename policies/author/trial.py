"""Cases, tried: the same appraisal and the same judgement of facts that authority and sidecar make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attestation.errors import InvalidConfiguration, MalformedEvidence
from policies.appraise.appraise import appraise
from policies.appraise.expiry import in_time
from policies.appraise.violation import violates
from policies.author import given
from policies.author.cases import NOTHING, Case, GivenClaims, GivenFact, Reason, Written
from policies.author.compare import opens
from policies.author.confined import evaluate_confined
from policies.author.remarks import Place
from policies.model.governing import Governing
from policies.model.load import PolicySet, load
from policies.model.signing import Trust


@dataclass(frozen=True, slots=True)
class Found:
    """A reason or a violation that came of a case."""

    signal: str
    subject: str
    violation_class: str
    text: str
    rule: str


@dataclass(frozen=True, slots=True)
class Tried:
    """tier: empty for a fact. found: every reason; of a fact the violation, if it is one.

    failures: what is not as it was expected.
    """

    test: str
    name: str
    place: Place
    tier: str
    opens: bool | None
    found: tuple[Found, ...]
    failures: tuple[str, ...]


def tried(written: Written, trust: Trust | None = None) -> Iterator[Tried]:
    """Each case of one document. trust: who has to have signed its reference values; None where nobody has to.

    Raises InvalidConfiguration where its policies cannot be read, or a registration cannot be found.
    """
    spec = written.test.spec
    policies = load([written.folder / path for path in spec.policies], spec.root_namespace, trust)
    for case, place in zip(spec.cases, written.places, strict=True):
        governing = _governing(case, policies, place)
        try:
            outcome = _fact(case.fact, governing) if case.fact is not None else _claims(case, governing)
        except MalformedEvidence as error:
            raise InvalidConfiguration(f"no measurer could send this: {error.sentence}", where=str(place)) from error
        yield Tried(written.test.metadata.qualified, case.name, place, *outcome, tuple(_failures(case, *outcome)))


def _governing(case: Case, policies: PolicySet, place: Place) -> Governing:
    governing = policies.governing.get(case.registration)
    if governing is None:
        why = "no policy is for" if case.registration in policies.unruled else "there is no"
        raise InvalidConfiguration(
            f"{why} registration {case.registration!r}",
            where=str(place),
            mend=f"Ruled are: {', '.join(sorted(policies.governing)) or 'none'}.",
        )
    return governing


Outcome = tuple[str, bool | None, tuple[Found, ...]]


def _claims(case: Case, governing: Governing) -> Outcome:
    claims, bodies = given.claims(case.claims or GivenClaims(), governing)
    verdict = appraise(claims, bodies, governing, evaluate_confined)
    if case.at is not None:
        verdict = in_time(verdict, governing, case.at)
    found = (Found(each.kind, each.subject, each.finding_class, each.text, each.rule) for each in verdict.reasons)
    return verdict.tier.label, opens(verdict, governing), tuple(found)


def _fact(fact: GivenFact, governing: Governing) -> Outcome:
    violation = violates(given.fact(fact, governing), governing.policy, governing.references)
    if violation is None:
        return "", None, ()
    found = Found(violation.kind, violation.subject, violation.violation_class, violation.text, violation.rule)
    return "", None, (found,)


def _failures(case: Case, tier: str, opens: bool | None, found: tuple[Found, ...]) -> Iterator[str]:
    expected = case.expect
    if expected.tier is not None and expected.tier != tier:
        yield f"tier is {tier}, where {expected.tier} is expected"
    if expected.opens is not None and expected.opens != opens:
        yield "traffic is open, where it is to be closed" if opens else "traffic is closed, where it is to be open"
    if expected.violates is not None and expected.violates.signal == NOTHING:
        yield from (f"it violates {_told(each)}, where nothing is expected" for each in found)
    elif expected.violates is not None:
        yield from _unmatched((expected.violates,), found)
    if expected.reasons is not None:
        yield from _unmatched(expected.reasons, found)


def _unmatched(expected: tuple[Reason, ...], found: tuple[Found, ...]) -> Iterator[str]:
    for each in expected:
        if not any(_meant(each, one) for one in found):
            subject = f" of {each.subject}" if each.subject else ""
            as_what = f" as {each.violation_class}" if each.violation_class else ""
            yield f"{each.signal}{subject}{as_what} is expected, and not found"
    for one in found:
        if not any(_meant(each, one) for each in expected):
            yield f"{_told(one)} is found, and not expected"


def _meant(expected: Reason, found: Found) -> bool:
    return (
        expected.signal == found.signal
        and expected.subject in (None, found.subject)
        and expected.violation_class in (None, found.violation_class)
    )


def _told(found: Found) -> str:
    return f"{found.signal} ({found.violation_class}) of {found.text}  ({found.rule})"
