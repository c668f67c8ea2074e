"""What the authority says, believed only after it is checked: the enrolment, and each round's answer.

The authority is trusted to appraise. It is not trusted to have kept its answers apart: each is held against the one
question it may answer, and its times against the policy, so that nothing replayed, mixed up or forged by somebody in
between opens anything, or keeps it open for longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import cmw, results
from attestation.errors import InvalidInput, MalformedResult
from attestation.instance import InstanceId
from attestation.keys import from_der
from attestation.results import Result
from attestation.spiffe import SpiffeId
from attestation.trust import Tier
from policies.model.policy import Mode
from sidecar.freshness import Lease, Now
from wire.messages import Answer, Enrolment

_ANSWER = "attestation answer"
_MEND = "Nothing was opened. The authority, or something in between, mixed up its answers: look at its log."
_MOST_CHAIN = 64 * 1024
_ODD_CERTIFICATE = (
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises, besides ValueError, for a certificate that it cannot read."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What an enrolment comes to. bundle: PEM. result_key: signs results, policies and releases."""

    spiffe_id: SpiffeId
    bundle: bytes
    roots: tuple[x509.Certificate, ...]
    result_key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Asked:
    """What one round asked. sequence: of the nonce. sent: CLOCK_BOOTTIME at which the nonce was asked for, at the
    latest. freshness: seconds. leaf_key: the one that a certificate may be for.
    """

    nonce: bytes
    sequence: int
    sent: float
    instance: InstanceId
    generation: int
    policy_epoch: int
    mode: Mode
    freshness: float
    leaf_key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Believed:
    """chain: PEM, leaf first; empty where no certificate was earned, and then there is no lease."""

    result: Result
    chain: bytes
    lease: Lease | None


def member(enrolment: Enrolment, trust_domain: str) -> Membership:
    """Raises MalformedResult for an identity that no workload of this trust domain can have, or useless keys."""
    try:
        spiffe_id = SpiffeId.parse(enrolment.spiffe_id)
        result_key = from_der(enrolment.result_key)
        roots = tuple(x509.load_pem_x509_certificates(enrolment.bundle.encode()))
    except (InvalidInput, ValueError) as error:
        raise MalformedResult(
            f"an enrolment that does not parse: {error}",
            where="enrolment",
            mend="Are sidecar and authority of releases that go together?",
        ) from error
    if spiffe_id.trust_domain != trust_domain or not spiffe_id.path or spiffe_id.reserved:
        raise MalformedResult(
            f"the authority gives the identity {spiffe_id}",
            where="enrolment",
            mend=f"A workload's lies in {trust_domain}, outside /proofbeat/: check `trustDomain` and the registration.",
        )
    return Membership(spiffe_id, enrolment.bundle.encode(), roots, result_key)


def believe(answer: Answer, asked: Asked, membership: Membership, now: Now) -> Believed:
    """Raises MalformedResult for an answer to anything but what was asked."""
    # 1. The result: signed by the authority, still running, about this evidence.
    result = _result(answer.ear, membership, now)
    _same_round(result, asked, membership)
    # 2. Its period: no longer than policy grants, and not beyond what is signed.
    lease = _lease(answer, result, asked)
    # 3. The certificate, where there is one: for our key, under our identity, around this result, for this period.
    if not answer.chain:
        return Believed(result, b"", None)
    _check_chain(answer, result, asked, membership, now)
    return Believed(result, answer.chain.encode(), lease)


def _result(ear: str, membership: Membership, now: Now) -> Result:
    try:
        return results.parse(ear, membership.result_key, now=now.wall)
    except MalformedResult as error:
        raise MalformedResult(error.what, where=error.where, mend=error.mend or _MEND) from error


def _same_round(result: Result, asked: Asked, membership: Membership) -> None:
    wrong = [
        name
        for name, found, expected in (
            ("nonce", result.nonce, asked.nonce),
            ("instance", result.instance, asked.instance),
            ("SPIFFE ID", result.spiffe_id, membership.spiffe_id),
            ("generation", result.generation, asked.generation),
            ("policy epoch", result.policy_epoch, asked.policy_epoch),
            ("mode", result.mode, asked.mode),
        )
        if found != expected
    ]
    if wrong:
        raise MalformedResult(
            f"the result is for another {', another '.join(wrong)}", where="attestation result", mend=_MEND
        )


def _lease(answer: Answer, result: Result, asked: Asked) -> Lease:
    if answer.lease_ms > asked.freshness * 1000:
        raise MalformedResult(
            f"a lease of {answer.lease_ms / 1000:g} s, where policy grants {asked.freshness:g} s",
            where=_ANSWER,
            mend=_MEND,
        )
    end_ms = answer.issued_ms + answer.lease_ms
    if end_ms // 1000 > result.expires_at:
        raise MalformedResult(
            f"a lease that outlives its result by {end_ms / 1000 - result.expires_at:g} s", where=_ANSWER, mend=_MEND
        )
    return Lease(
        number=asked.sequence,
        boot_end=asked.sent + answer.lease_ms / 1000,
        wall_end=end_ms / 1000,
        affirmed=result.status is Tier.AFFIRMING,
    )


def _check_chain(answer: Answer, result: Result, asked: Asked, membership: Membership, now: Now) -> None:
    leaf, path = _parsed(answer.chain)
    wrong = [
        what
        for what, holds in (
            ("for another key", leaf.key == asked.leaf_key),
            ("for another identity", leaf.identities == [str(membership.spiffe_id)]),
            ("around another result", leaf.ear == answer.ear),
            ("valid for longer than its result", leaf.end <= result.expires_at),
            ("not valid yet", leaf.start <= now.wall),
            ("not issued under the enrolled bundle", _issued(path, membership.roots)),
        )
        if not holds
    ]
    if wrong:
        raise MalformedResult(f"the certificate is {', '.join(wrong)}", where=_ANSWER, mend=_MEND)


@dataclass(frozen=True, slots=True)
class _Leaf:
    """start, end: Unix seconds."""

    key: object
    identities: list[str]
    ear: str
    start: float
    end: float


def _parsed(chain: str) -> tuple[_Leaf, list[x509.Certificate]]:
    try:
        if len(chain) > _MOST_CHAIN:
            raise ValueError(f"{len(chain)} bytes")
        path = x509.load_pem_x509_certificates(chain.encode())
        first = path[0]
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        leaf = _Leaf(
            first.public_key(),
            names.get_values_for_type(x509.UniformResourceIdentifier),
            cmw.ear_of(first),
            first.not_valid_before_utc.timestamp(),
            first.not_valid_after_utc.timestamp(),
        )
    except (ValueError, TypeError, *_ODD_CERTIFICATE) as error:
        raise MalformedResult(f"a certificate chain that does not parse: {error}", where=_ANSWER, mend=_MEND) from error
    return leaf, path


def _issued(path: list[x509.Certificate], roots: tuple[x509.Certificate, ...]) -> bool:
    """Each by the next, and the last by a root. Peers check much more; this tells a mix-up from a certificate."""
    return all(_by(child, parent) for child, parent in pairwise(path)) and any(_by(path[-1], root) for root in roots)


def _by(child: x509.Certificate, parent: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
