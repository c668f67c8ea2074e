"""The policies in force: one epoch, and for every registration what rules it, as signed for its sidecars."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from attestation import jws, results
from attestation.digests import Digest
from attestation.errors import InvalidConfiguration, Refused
from attestation.spiffe import SpiffeId
from attestation.violation import ViolationClass
from authority.denials import Registered
from policies.model.faults import Fault
from policies.model.governing import Governing
from policies.model.load import PolicySet
from policies.model.policy import AttestationPolicy, EffectivePolicy, Mode, Recovery
from policies.model.references import EffectiveReferences
from wire.messages import MOST_FRAME
from wire.problems import Kind

MOST_TOLD = MOST_FRAME * 3 // 4 - 1024 * 1024
"""Bytes of what rules a registration: signed it is a third longer, and an enrolment says more beside it."""
_AS_TAMPER = ("order", "clone")
"""Causes that no sidecar reports."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What rules one registration. digest: of everything that an appraisal looks at. document: JWS."""

    name: str
    identity: SpiffeId
    governing: Governing
    digest: Digest
    document: str

    @property
    def policy(self) -> AttestationPolicy:
        return self.governing.policy

    @property
    def references(self) -> EffectiveReferences:
        return self.governing.references

    @property
    def nonce_valid_ms(self) -> int:
        """Two intervals: a nonce may be fetched one round ahead."""
        return int(self.policy.spec.interval * 2000)

    @property
    def freshness_ms(self) -> int:
        return int(self.policy.spec.freshness * 1000)

    def founded(self, lease_end_ms: int, now_ms: int) -> int:
        """A lease's end, or that of the reference values that it rests on. What they no longer affirm has none.

        Only where policy enforces: leases that grow shorter than a round would close traffic in audit, too.
        """
        expires = self.references.spec.expires
        if expires is None or expires * 1000 <= now_ms or self.policy.spec.mode is not Mode.ENFORCE:
            return lease_end_ms
        return min(lease_end_ms, expires * 1000)

    def binds(self, violation_class: ViolationClass) -> bool:
        """Whether a cause of this class quarantines until it is released. In observe and audit it is only recorded."""
        return self.policy.spec.mode is Mode.ENFORCE and self._recovery(violation_class) is not Recovery.AUTO

    @property
    def awaits_release(self) -> frozenset[str]:
        """The kinds of causes that keep new instances from enrolling until they are released."""
        manual = {each for each in ViolationClass if self.binds(each) and self._recovery(each) is Recovery.MANUAL}
        return frozenset({*manual, *(_AS_TAMPER if ViolationClass.TAMPER in manual else ())})

    def _recovery(self, violation_class: ViolationClass) -> Recovery:
        recovery = self.policy.spec.recovery
        return recovery.tamper if violation_class is ViolationClass.TAMPER else recovery.drift


@dataclass(frozen=True, slots=True)
class _Drafted:
    """What a sidecar is told of a registration, but for the epoch. body: JSON."""

    governing: Governing
    identity: SpiffeId
    digest: Digest
    body: str

    def ruled(self, name: str, epoch: int, signer: jws.Signer) -> Ruling:
        document = f'{{"epoch":{epoch},{self.body[1:]}'.encode()
        signed = signer.sign(document, kind=results.POLICY_KIND)
        return Ruling(name, self.identity, self.governing, self.digest, signed)


class Draft:
    """A set of policies as it would come into force: everything is built and checked, and no epoch is taken yet.

    most_bytes: of what one sidecar is told of what rules it. What is larger is one registration's fault.
    """

    def __init__(self, policies: PolicySet, most_bytes: int = MOST_TOLD) -> None:
        self.digest = policies.digest
        self.identities = policies.identities
        self._unruled = frozenset(policies.unruled)
        self._faulty: dict[str, Collection[Fault]] = dict(policies.faulty)
        self.faults: dict[Fault, Sequence[str]] = dict(policies.faults)
        self._drafted: dict[str, _Drafted] = {}
        for name, governing in policies.governing.items():
            body = _body(governing)
            if len(body) <= most_bytes:
                identity = SpiffeId.parse(governing.registration.spec.spiffe_id)
                self._drafted[name] = _Drafted(governing, identity, governing.digest, body)
            else:
                fault = _too_large(governing, len(body), most_bytes)
                self._faulty[name], self.faults[fault] = (fault,), (name,)

    def signed(self, epoch: int, signer: jws.Signer) -> Rules:
        rulings = {name: each.ruled(name, epoch, signer) for name, each in self._drafted.items()}
        return Rules(epoch, rulings, self._unruled, self._faulty, self.faults)


class Rules:
    """Immutable; a change of any policy is a new value with a higher epoch. Made by a Draft.

    unruled: registrations that no policy is for. faulty: such as documents concern that cannot be used, with what is
    wrong. faults: all of that, each with the registrations that it concerns.
    """

    def __init__(
        self,
        epoch: int,
        rulings: Mapping[str, Ruling],
        unruled: Collection[str],
        faulty: Mapping[str, Collection[Fault]],
        faults: Mapping[Fault, Sequence[str]],
    ) -> None:
        self.epoch = epoch
        self.faults = faults
        self._rulings = rulings
        self._unruled = unruled
        self._faulty = faulty

    @property
    def registrations(self) -> Mapping[str, Ruling]:
        return self._rulings

    @property
    def identities(self) -> dict[str, str]:
        """Registration -> SPIFFE ID."""
        return {name: str(ruling.identity) for name, ruling in self._rulings.items()}

    @property
    def registered(self) -> dict[str, Registered]:
        """The registrations, as the list of denials looks at them."""
        return {
            name: Registered(str(ruling.identity), ruling.policy.spec.mode is Mode.ENFORCE)
            for name, ruling in self._rulings.items()
        }

    def of(self, registration: str) -> Ruling:
        """Raises Refused (registration-unknown, registration-unruled)."""
        found = self._rulings.get(registration)
        if found is None and registration in self._faulty:
            wrong = ", ".join(sorted({each.document for each in self._faulty[registration]}))
            raise Refused(
                f"the registration {registration!r} gets no identity, for this cannot be used: {wrong}",
                kind=Kind.REGISTRATION_UNRULED,
                where="policies",
                mend="Mend it: `proofbeat status` at the authority says what is wrong, and where.",
            )
        if found is None and registration in self._unruled:
            raise Refused(
                f"no policy is for the registration {registration!r}, so it gets no identity",
                kind=Kind.REGISTRATION_UNRULED,
                where="policies",
                mend="Write an AttestationPolicy whose selector chooses it, or one for its whole namespace.",
            )
        if found is None:
            raise Refused(
                f"the registration {registration!r} does not exist",
                kind=Kind.REGISTRATION_UNKNOWN,
                where="policies",
                mend=f"Known: {', '.join(sorted(self._rulings)) or 'none'}.",
            )
        return found


def _body(governing: Governing) -> str:
    parts = {
        "policy": _for_sidecars(governing.policy),
        "references": governing.references,
        "registration": governing.registration,
    }
    told = {name: part.model_dump(mode="json", by_alias=True) for name, part in parts.items()}
    return json.dumps(told, separators=(",", ":"))


def _too_large(governing: Governing, size: int, most: int) -> Fault:
    registration = governing.registration
    name = registration.metadata.qualified
    error = InvalidConfiguration(
        f"what rules the registration {name!r} comes to {size} bytes, and a sidecar can be told {most}",
        where=str(governing.documents[-1]) if governing.documents else "policies",
        mend="State fewer reference values, or take them apart by registrations.",
    )
    return Fault(error, f"{registration.kind}/{name}", registration.metadata.namespace)


def _for_sidecars(policy: AttestationPolicy) -> AttestationPolicy:
    """Without its rules: only an appraisal evaluates them, and an older sidecar may not know what they look at."""
    if not policy.spec.rules:
        return policy
    changes: dict[str, object] = {"spec": policy.spec.model_copy(update={"rules": {}})}
    if isinstance(policy, EffectivePolicy):
        changes["origins"] = {at: who for at, who in policy.origins.items() if not at.startswith("rules.")}
    return policy.model_copy(update=changes)
