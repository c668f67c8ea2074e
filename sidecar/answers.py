"""What the authority says, believed only after it is checked: the enrolment, and each round's answer.

The authority is trusted to appraise. It is not trusted to have kept its answers apart: each is held against the one
question it may answer, and its times against the policy, so that nothing replayed, mixed up or forged by somebody in
between opens anything, or keeps it open for longer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import addresses, breakglass, cmw, results
from attestation.errors import InvalidInput, MalformedResult
from attestation.instance import InstanceId
from attestation.keys import from_der
from attestation.results import Result
from attestation.spiffe import SpiffeId
from attestation.trust import Tier
from policies.model.policy import Mode
from sidecar.states import Lease, Now
from wire.messages import MOST_DENIED, MOST_DENIED_ADDRESSES, MOST_DENIED_LEAVES, Answer, Denials, Denied, Enrolment

_ANSWER = "attestation answer"
_MEND = "Nothing was opened. The authority, or something in between, mixed up its answers: look at its log."
_MOST_CHAIN = 64 * 1024
_DENIALS = "list of denials"
_MOST_CRL = 256 * 1024
_CAUSE = re.compile(r"c-[0-9a-f]{1,64}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_SERIAL_BYTES = 20
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


def believe_denials(told: Denials, last: int, chain: bytes, membership: Membership, now: Now) -> None:
    """Whether a list may be carried out. last: the version in force. chain: our own, whose issuer the CRL must be of.

    Raises MalformedResult for one that is older, larger than the wire allows, names what no certificate of this trust
    domain has, or whose CRL would have Envoy refuse everybody, or nobody.
    """
    wrong = [
        what
        for what, holds in (
            ("older than the one in force", told.version >= last),
            (f"of {len(told.denied)} instances", len(told.denied) <= MOST_DENIED),
            ("of too many certificates", sum(len(each.leaves) for each in told.denied) <= MOST_DENIED_LEAVES),
            ("of too many addresses", sum(len(each.addresses) for each in told.denied) <= MOST_DENIED_ADDRESSES),
            ("of what no certificate has", all(_nameable(each, membership) for each in told.denied)),
        )
        if not holds
    ] or _crl_faults(told, chain, membership, now)
    if wrong:
        raise MalformedResult(f"it is {', '.join(wrong)}", where=_DENIALS, mend=_MEND_DENIALS)


_MEND_DENIALS = (
    "The list before it stays in force. The authority, or something in between, is not what it was enrolled as."
)


def _nameable(denied: Denied, membership: Membership) -> bool:
    try:
        identity = SpiffeId.parse(denied.spiffe_id)
        for each in denied.addresses:
            addresses.parse(each)
    except InvalidInput:
        return False
    return (
        identity.trust_domain == membership.spiffe_id.trust_domain
        and _CAUSE.fullmatch(denied.cause) is not None
        and all(_FINGERPRINT.fullmatch(leaf.fingerprint) for leaf in denied.leaves)
        and all(0 < len(leaf.serial) <= _SERIAL_BYTES for leaf in denied.leaves)
    )


def _crl_faults(told: Denials, chain: bytes, membership: Membership, now: Now) -> list[str]:
    """Envoy takes a CRL of a stranger, and one that has run out, and then refuses every certificate."""
    try:
        if len(told.crl) > _MOST_CRL:
            raise ValueError(f"{len(told.crl)} bytes")
        crl = x509.load_pem_x509_crl(told.crl)
        revoked = {each.serial_number for each in crl}
        ends = crl.next_update_utc
        issuer = _issuer(x509.load_pem_x509_certificates(chain), membership.roots)
        ours = crl.issuer == issuer.subject and crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type] # else TypeError
    except (ValueError, TypeError, *_ODD_CERTIFICATE) as error:
        return [f"with a CRL that does not parse: {error}"]
    named = {int.from_bytes(leaf.serial) for each in told.denied for leaf in each.leaves}
    return [
        what
        for what, holds in (
            ("with a CRL of another authority", ours),
            ("with a CRL of other certificates", revoked == named),
            ("with a CRL that is over", ends is not None and ends.timestamp() > now.wall),
            ("with a CRL that is not valid yet", crl.last_update_utc.timestamp() <= now.wall),
        )
        if not holds
    ]


def _issuer(path: list[x509.Certificate], roots: tuple[x509.Certificate, ...]) -> x509.Certificate:
    """Of the leaf that a chain begins with. Raises ValueError where nobody is."""
    for candidate in (*path[1:2], *roots):
        if _by(path[0], candidate):
            return candidate
    raise ValueError("no issuer of our own certificate is known")


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
            ("marked otherwise than its result", leaf.break_glass == result.break_glass),
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
    break_glass: str
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
            breakglass.marked(first),
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
