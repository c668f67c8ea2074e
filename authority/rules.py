"""The policies in force: one epoch, and for every registration what rules it, as signed for its sidecars."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from attestation import jws, results
from attestation.digests import Digest
from attestation.errors import Refused
from attestation.spiffe import SpiffeId
from attestation.violation import ViolationClass
from authority.denials import Registered
from policies.model.governing import Governing
from policies.model.load import PolicySet
from policies.model.policy import AttestationPolicy, EffectivePolicy, Mode, Recovery
from policies.model.references import EffectiveReferences
from wire.problems import Kind

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


class Rules:
    """Immutable; a change of any policy is a new value with a higher epoch."""

    def __init__(self, policies: PolicySet, epoch: int, signer: jws.Signer) -> None:
        self.epoch = epoch
        self.digest = policies.digest
        self._unruled = frozenset(policies.unruled)
        self._rulings: Mapping[str, Ruling] = {
            name: Ruling(
                name,
                SpiffeId.parse(governing.registration.spec.spiffe_id),
                governing,
                governing.digest,
                _document(governing, epoch, signer),
            )
            for name, governing in policies.governing.items()
        }

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


def _document(governing: Governing, epoch: int, signer: jws.Signer) -> str:
    parts = {
        "policy": _for_sidecars(governing.policy),
        "references": governing.references,
        "registration": governing.registration,
    }
    body = {"epoch": epoch, **{name: part.model_dump(mode="json", by_alias=True) for name, part in parts.items()}}
    return signer.sign(json.dumps(body, separators=(",", ":")).encode(), kind=results.POLICY_KIND)


def _for_sidecars(policy: AttestationPolicy) -> AttestationPolicy:
    """Without its rules: only an appraisal evaluates them, and an older sidecar may not know what they look at."""
    if not policy.spec.rules:
        return policy
    changes: dict[str, object] = {"spec": policy.spec.model_copy(update={"rules": {}})}
    if isinstance(policy, EffectivePolicy):
        changes["origins"] = {at: who for at, who in policy.origins.items() if not at.startswith("rules.")}
    return policy.model_copy(update=changes)
