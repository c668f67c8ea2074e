"""The break-glass order: operators let traffic flow for a while that an appraisal would close.

It is one of two written exceptions to the invariant (sidecar/freshness.py), so everything about it is exact: whom it is
for, by name *and* identity; from when to when; why. It waives findings of class drift, and never a tamper.

Its form is JWS JSON Serialization (RFC 7515 section 7.2.1): one payload, a signature for each operator, so that each
can be made on another machine, and any JWS library can check them. `kid` is the thumbprint of the operator's key; it
only says which key to try. The payload has one spelling, and the order's id is a digest of it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from cryptography import x509

from attestation import digests, jws, keys, strictjson
from attestation.digests import Digest
from attestation.errors import InvalidInput, MalformedResult
from attestation.instance import InstanceId
from attestation.keys import SigningKey, VerifyingKey
from attestation.plain import build, plain
from attestation.quantities import instant_text
from attestation.spiffe import SpiffeId
from attestation.violation import ViolationClass
from attestation.wording import shown

KIND = "proofbeat-breakglass+jws"
MOST_BYTES = 256 * 1024
MOST_SIGNATURES = 32
MOST_NAMED, MOST_IDENTITIES = 64, 512
MOST_REASON = 500
MOST_AHEAD = 24 * 3600
"""Seconds after its making within which an order has to begin: none lies ready in a drawer."""

_SALT_BYTES = 16
_LAST = 253_402_300_799
"""The end of the year 9999, Unix seconds: the last time that can be written."""
_NAME = re.compile(r"[a-z0-9][a-z0-9./-]{0,511}")
_WHERE = "break-glass order"


class Reach(StrEnum):
    """What an order's scope names. MESH is everything there is, and is only ever meant when it is said."""

    REGISTRATIONS = "registrations"
    NAMESPACE = "namespace"
    INSTANCE = "instance"
    MESH = "mesh"


@dataclass(frozen=True, slots=True)
class Subject:
    """One instance that an order may be for. registration: qualified, `payments/web`."""

    registration: str
    namespace: str
    spiffe_id: SpiffeId
    instance: InstanceId


@dataclass(frozen=True, slots=True)
class Scope:
    """names: of registrations (qualified), of one namespace, or one instance; none for the whole mesh.

    identities: the SPIFFE IDs that these had when the order was made. A name that has come to mean another identity
    since is not in scope any more. None for the whole mesh.
    """

    reach: Reach
    names: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()

    def covers(self, subject: Subject) -> bool:
        if self.reach is Reach.MESH:
            return True
        name = {
            Reach.REGISTRATIONS: subject.registration,
            Reach.NAMESPACE: subject.namespace,
            Reach.INSTANCE: subject.instance.value,
        }[self.reach]
        return name in self.names and str(subject.spiffe_id) in self.identities

    def __str__(self) -> str:
        return "mesh" if self.reach is Reach.MESH else f"{self.reach} {', '.join(self.names)}"


@dataclass(frozen=True, slots=True)
class Order:
    """issued_at, not_before, not_after: Unix seconds. least_epoch: of the policies that it may be held against.

    waives: findings of this class; drift, and nothing else (docs/adr/0019). salt: hexadecimal and random, so that no
    two orders have the same id.
    """

    trust_domain: str
    scope: Scope
    issued_at: int
    not_before: int
    not_after: int
    reason: str
    least_epoch: int
    salt: str
    waives: ViolationClass = ViolationClass.DRIFT

    @property
    def id(self) -> str:
        return "bg-" + digests.tagged("break-glass", payload(self))[:32]

    @property
    def lasts(self) -> int:
        """Seconds."""
        return self.not_after - self.not_before

    def standing(self, now: float) -> str:
        """`waiting`, `in force` or `over`. now: Unix seconds."""
        return "waiting" if now < self.not_before else "in force" if now < self.not_after else "over"

    def in_force(self, now: float) -> bool:
        """now: Unix seconds."""
        return self.not_before <= now < self.not_after

    def __str__(self) -> str:
        begin, end = instant_text(self.not_before), instant_text(self.not_after)
        return f"{self.id} for {self.scope}, from {begin} to {end}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Signature:
    """One operator's. kid: the thumbprint of the key that it is said to be by."""

    kid: Digest
    protected: str
    value: str


@dataclass(frozen=True, slots=True)
class Signed:
    """An order with its signatures, none of which has been checked."""

    order: Order
    signatures: tuple[Signature, ...] = ()

    def with_signature(self, key: SigningKey) -> Signed:
        """Raises InvalidInput where there is no room for another one."""
        protected, _, value = jws.sign(payload(self.order), key, kind=KIND).split(".")
        ours = Signature(keys.thumbprint(key.public_key()), protected, value)
        others = tuple(each for each in self.signatures if each.kid != ours.kid)
        if len(others) >= MOST_SIGNATURES:
            raise InvalidInput(f"{len(others)} signatures are enough", where=_WHERE)
        return replace(self, signatures=(*others, ours))

    def signatories(self, operators: Iterable[VerifyingKey]) -> frozenset[Digest]:
        """Thumbprints of those operators whose signature holds: each counts once, whatever is there twice."""
        known = {keys.thumbprint(key): key for key in operators}
        return frozenset(each.kid for each in self.signatures if each.kid in known and self._holds(each, known))

    def _holds(self, signature: Signature, known: Mapping[Digest, VerifyingKey]) -> bool:
        body = payload(self.order)
        token = f"{signature.protected}.{_base64(body)}.{signature.value}"
        try:
            return jws.open_signed(token, known[signature.kid], kind=KIND) == body
        except MalformedResult:
            return False


def payload(order: Order) -> bytes:
    """The one spelling of an order: what operators sign."""
    return json.dumps(plain(order), separators=(",", ":"), sort_keys=True).encode()


def to_text(signed: Signed) -> str:
    """As a file holds it, and the wire."""
    signatures = [
        {"header": {"kid": each.kid}, "protected": each.protected, "signature": each.value}
        for each in signed.signatures
    ]
    return json.dumps({"payload": _base64(payload(signed.order)), "signatures": signatures}, indent=1) + "\n"


def from_text(text: str) -> Signed:
    """`to_text` reversed. Raises MalformedResult for what is no order, or one that can never hold."""
    if len(text) > MOST_BYTES:
        raise _malformed(f"{len(text)} characters are too many")
    try:
        document = strictjson.loads(text)
        if document.keys() != {"payload", "signatures"} or len(document["signatures"]) > MOST_SIGNATURES:
            raise ValueError("other parts than a payload and signatures, or too many of these")
        body = _unbase64(document["payload"])
        order = build(Order, strictjson.loads(body), where="order")
        signatures = tuple(_signature(each) for each in document["signatures"])
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInput) as error:
        raise _malformed(f"it does not parse ({error})") from error
    if payload(order) != body:
        raise _malformed("it is not spelled as operators sign it")
    check(order)
    return Signed(order, signatures)


def check(order: Order) -> None:
    """Raises MalformedResult for an order that says nothing exact, or could lie ready for years."""
    wrong = [
        what
        for what, holds in (
            ("of no trust domain", _trust_domain(order.trust_domain)),
            ("without a scope that is exact", _exact(order.scope, order.trust_domain)),
            ("that ends before it begins", order.not_before < order.not_after),
            ("that begins before it was made", order.issued_at <= order.not_before),
            (f"that begins more than {MOST_AHEAD // 3600} h after it was made", _soon(order)),
            ("of no time that a clock shows", _told(order.issued_at) and _told(order.not_after)),
            ("that waives more than drift", order.waives is ViolationClass.DRIFT),
            ("without a reason", bool(order.reason.strip())),
            (
                f"with a reason that is no line of at most {MOST_REASON}",
                shown(order.reason, MOST_REASON) == order.reason,
            ),
            ("of a policy epoch below zero", order.least_epoch >= 0),
            ("without a salt", _salted(order.salt)),
        )
        if not holds
    ]
    if wrong:
        raise _malformed(f"an order {', '.join(wrong)}")


def _exact(scope: Scope, trust_domain: str) -> bool:
    """Names and identities, each once and in order, so that there is one spelling."""
    if scope.reach is Reach.MESH:
        return not scope.names and not scope.identities
    most = MOST_NAMED if scope.reach is Reach.REGISTRATIONS else 1
    ordered = all(sorted(set(each)) == list(each) for each in (scope.names, scope.identities))
    bounded = 0 < len(scope.names) <= most and 0 < len(scope.identities) <= MOST_IDENTITIES
    named = all(map(_instance if scope.reach is Reach.INSTANCE else _NAME.fullmatch, scope.names))
    return ordered and bounded and named and all(_of(each, trust_domain) for each in scope.identities)


def _instance(name: str) -> bool:
    try:
        return bool(InstanceId(name))
    except InvalidInput:
        return False


def _of(identity: str, trust_domain: str) -> bool:
    try:
        return SpiffeId.parse(identity).trust_domain == trust_domain
    except InvalidInput:
        return False


def _trust_domain(name: str) -> bool:
    try:
        return bool(SpiffeId(name))
    except InvalidInput:
        return False


def _soon(order: Order) -> bool:
    return order.not_before - order.issued_at <= MOST_AHEAD


def _told(at: int) -> bool:
    return 0 < at <= _LAST


def _salted(salt: str) -> bool:
    return len(salt) == 2 * _SALT_BYTES and all(each in "0123456789abcdef" for each in salt)


def _signature(value: dict[str, object]) -> Signature:
    if value.keys() != {"header", "protected", "signature"}:
        raise ValueError("a signature has header, protected and signature")
    header = value["header"]
    if not isinstance(header, dict) or header.keys() != {"kid"}:
        raise ValueError("a signature's header has kid")
    return build(Signature, {"kid": header["kid"], "protected": value["protected"], "value": value["signature"]})


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("a payload that is not base64url") from error


def _malformed(what: str) -> MalformedResult:
    return MalformedResult(what, where=_WHERE, mend="`proofbeat breakglass request` writes one as it has to be.")


# --- the mark in a certificate ---

OID = x509.ObjectIdentifier("2.25.254132558762054203878676781765755830854")
"""Marks a certificate that break-glass let through; its value is the order's id. From a UUID (X.667), so nobody's."""


def mark(identity: str) -> x509.UnrecognizedExtension:
    """The extension for the order of this id; add it as not critical: peers are to see it, and to go on."""
    return x509.UnrecognizedExtension(OID, b"\x0c" + bytes([len(identity)]) + identity.encode())


def marked(certificate: x509.Certificate) -> str:
    """The id of the order that let this certificate through; empty for one that was earned."""
    try:
        found = certificate.extensions.get_extension_for_oid(OID).value
    except x509.ExtensionNotFound:
        return ""
    return found.value[2:].decode("ascii", "replace") if isinstance(found, x509.UnrecognizedExtension) else ""
