"""wire/ and what travels in it: messages of a hostile sidecar to its authority, and of a hostile authority back."""

from __future__ import annotations

import json
from contextlib import suppress

from attestation import addresses, cose, keys, results
from attestation.drift import Drift
from attestation.errors import InvalidInput, MalformedResult, Refused
from attestation.spiffe import SpiffeId
from attestation.violation import ViolationClass
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy
from policies.model.references import ReferenceSpec, ReferenceValues
from policies.model.registration import RegistrationSpec, WorkloadRegistration
from sidecar.governing import read_governing
from tests.fuzz.grammar import repaired
from tests.fuzz.target import Target
from tests.fuzz.world import INSTANCE, KEY, NONCE, NOW, PUBLIC, SIGNER
from wire import messages, problems, proofs, versions
from wire.messages import (
    Answer,
    AskDenials,
    AskHold,
    AskNonce,
    Attest,
    AttestNow,
    Body,
    Cause,
    Denials,
    Denied,
    DeniedLeaf,
    Enrol,
    Enrolment,
    Goodbye,
    Hello,
    Hold,
    HoldOver,
    Message,
    Need,
    Nonce,
    PolicyChanged,
    Posted,
    Quarantined,
    Reachable,
    Released,
    Report,
    Standing,
)
from wire.problems import Fault, Problem
from wire.proofs import Opened, Purpose
from wire.versions import Version

_NONCE = Nonce(NONCE, 7, NOW * 1000, 20_000, full=True)
_CAUSE = Cause("c-" + "0" * 32, "tamper", "a foreign program ran", NOW * 1000, 3)
_PROBLEM = Problem(
    problems.BASE + "leaf-key", "Leaf key", 400, "no key", "evidence", "mend", (Fault(12, "leaf", "no"),)
)
_IDENTITY = SpiffeId("example.org", "/web")
_REGISTRATION = WorkloadRegistration(
    metadata=Metadata(name="web"),
    spec=RegistrationSpec(spiffe_id=str(_IDENTITY), references="web"),
)
_EVERY: tuple[Message, ...] = (
    _NONCE,
    _PROBLEM,
    AskNonce(),
    Goodbye(),
    Attest(b"evidence", (Body("a" * 64, b"content"),)),
    Report(2, ViolationClass.TAMPER, "a foreign program ran", NOW * 1000),
    Enrol(INSTANCE, keys.public_der(PUBLIC), join_token="token", unclean=True),
    Hello(INSTANCE, b"challenge"),
    Posted(INSTANCE, b"frame"),
    Enrolment(
        "spiffe://example.org/web", "ticket", _NONCE, "policy", 3, "bundle", b"key", Standing(True, (_CAUSE,), "order")
    ),
    Need(("a" * 64,)),
    Answer("ear", "chain", 1, 3, NOW * 1000, 60_000, _NONCE),
    AttestNow(_NONCE),
    Quarantined(_CAUSE),
    Released("order"),
    PolicyChanged(4, "document"),
    AskDenials(),
    Reachable(("127.0.0.1:9443", "[::1]:9443")),
    AskHold(4, (Drift("file-modified", "files", "/srv/app/main.py", "a" * 64),)),
    Hold(4, held=True, closed=1, live=4),
    HoldOver("there is room for it to close"),
    Denials(
        3, (Denied(INSTANCE, str(_IDENTITY), _CAUSE.id, (DeniedLeaf(b"\x81", "a" * 64, NOW * 1000),), ()),), b"crl"
    ),
)


def wire_message(data: bytes) -> None:
    """A frame that decodes can be sent on and decodes to the same again, in every version that knows its fields."""
    for frame in (data, repaired(data)):
        for minor in range(versions.OURS.highest.minor + 1):
            version = Version(versions.OURS.highest.major, minor)
            with suppress(InvalidInput):
                read = messages.decode(frame, version=version)
                again = messages.encode(read.message, read.number, version=version)
                assert messages.decode(again, version=version) == read


def sealed_request(data: bytes) -> None:
    """Whatever is posted: refused as malformed, or parsed and held against the key that ought to have signed it."""
    for sealed in (data, cose.sign1(repaired(data), KEY, aad=Purpose.POST.encode())):
        with suppress(InvalidInput, Refused):
            opened = Opened(sealed)
            asked = opened.claimed(Posted)
            opened.check(Purpose.POST, PUBLIC)
            assert asked.instance.value.startswith("i-")


def peer_address(data: bytes) -> None:
    """What is taken for an address is in its one form, and nothing else is equal to it."""
    with suppress(InvalidInput):
        text = data.decode("utf-8", "surrogateescape")
        assert addresses.address(*addresses.parse(text)) == text


def problem_document(data: bytes) -> None:
    """A document that reads can be told on, and becomes one of our errors."""
    with suppress(InvalidInput):
        problem = problems.from_json(data)
        assert problems.from_json(problems.to_json(problem)) == problem
        assert problems.error_of(problem).sentence


def version_offer(data: bytes) -> None:
    """A header of any content: what it offers, or our own error."""
    with suppress(InvalidInput):
        offer = versions.read(data.decode("latin-1"))
        assert versions.read(str(offer)) == offer


def policy_document(data: bytes) -> None:
    """A signed policy that is taken keeps its meaning when it is written down and signed again."""
    with suppress(MalformedResult):
        governed = read_governing(SIGNER.sign(data, kind=results.POLICY_KIND), PUBLIC, _IDENTITY, None)
        again = _policy_json(governed.policy, governed.references, governed.epoch)
        assert read_governing(SIGNER.sign(again, kind=results.POLICY_KIND), PUBLIC, _IDENTITY, governed) == governed


def _policy_json(policy: AttestationPolicy, references: ReferenceValues, epoch: int) -> bytes:
    parts = {"policy": policy, "references": references, "registration": _REGISTRATION}
    body = {name: part.model_dump(mode="json", by_alias=True) for name, part in parts.items()}
    return json.dumps({"epoch": epoch, **body}).encode()


def _policies() -> tuple[bytes, ...]:
    policy = AttestationPolicy(metadata=Metadata(name="hardened"))
    spec = ReferenceSpec.model_validate({"files": {"/srv/app": {"digests": ["a" * 64], "mode": "0644"}}})
    return (_policy_json(policy, ReferenceValues(metadata=Metadata(name="web"), spec=spec), 3),)


_JSON = (b'":', b"null", b"true", b"1e999", b"NaN", b"[[", b"{}", b"\\ud800", b'"10s"', b'"0.0001s"', b"9" * 40)

TARGETS = (
    Target(
        "wire",
        wire_message,
        lambda: tuple(messages.encode(each, number) for number, each in enumerate(_EVERY)),
        (b"bis", b"bno", b"bin", b"\xf6", b"\xa0", b"\x80", *(type(each).__name__.encode() for each in _EVERY)),
    ),
    Target(
        "sealed",
        sealed_request,
        lambda: (proofs.seal(Posted(INSTANCE, b"frame"), Purpose.POST, KEY), messages.encode(Posted(INSTANCE, b"f"))),
    ),
    Target(
        "address",
        peer_address,
        lambda: (b"127.0.0.1:9443", b"[2001:db8::7]:65535", b"[::ffff:7f00:1]:1", b"[fe80::1%eth0]:1"),
        (b"::", b"[", b"]:", b".", b"%", b"0", b"ffff"),
        most_bytes=128,
    ),
    Target("problem", problem_document, lambda: (problems.to_json(_PROBLEM),), _JSON),
    Target("version", version_offer, lambda: (str(versions.OURS).encode(), b"1.0", b"1.0-1.3"), most_bytes=128),
    Target("policy-document", policy_document, _policies, (*_JSON, b'"spec":', b'"layers":', b'"files":')),
)
