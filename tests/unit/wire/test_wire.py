"""Messages, problems, proofs and pauses."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from attestation import cbor, cose
from attestation.detectors.alerts import About, Alert, Detector, Priority, Whereabouts
from attestation.drift import Drift
from attestation.errors import InvalidConfiguration, InvalidInput, ProofbeatError, Refused, Unavailable
from attestation.instance import InstanceId
from attestation.violation import ViolationClass
from wire import backoff, link, messages, problems, proofs, tls
from wire.messages import (
    MOST_DENIED,
    MOST_DENIED_ADDRESSES,
    MOST_DENIED_LEAVES,
    Alerted,
    Answer,
    AskDenials,
    AskHold,
    AskNonce,
    AskPolicy,
    Attest,
    AttestNow,
    Body,
    Cause,
    Denials,
    Denied,
    DeniedLeaf,
    Done,
    Enrol,
    Enrolment,
    Goodbye,
    Hello,
    Hold,
    HoldOver,
    Message,
    Need,
    Nonce,
    Noted,
    Placed,
    PolicyChanged,
    Posted,
    Quarantined,
    Reachable,
    Released,
    Report,
    Standing,
)
from wire.problems import Fault, Kind, Problem, Rejected
from wire.proofs import Opened, Purpose
from wire.session import AuthorityClient, Endpoint

INSTANCE = InstanceId("i-" + "0" * 32)
NONCE = Nonce(b"n" * 61, 5, 1_000, 20_000, full=True)
CAUSE = Cause("c-1", "tamper", "a foreign program ran", 5, 1)
STANDING = Standing(True, (CAUSE,), "order")
PROBLEM = Problem(problems.BASE + "leaf-key", "Leaf key", 400, "no key", faults=(Fault(12, "leaf key", "no key"),))
KEY = ec.generate_private_key(ec.SECP256R1())

ALERT = Alert(Detector.FALCO, "Shell", "a shell", 5, About("a" * 12, pid=7), Priority.NOTICE, ("shell",), "/bin/sh")

EVERY: Iterable[Message] = (
    NONCE,
    STANDING,
    PROBLEM,
    Enrol(INSTANCE, b"key", join_token="t", unclean=True),
    Hello(INSTANCE, b"challenge"),
    Posted(INSTANCE, b"frame"),
    AskNonce(),
    AskPolicy(),
    Attest(b"evidence", (Body("ab" * 32, b"body"),)),
    Report(1, ViolationClass.TAMPER, "text", 5),
    Goodbye(),
    Enrolment("spiffe://a/b", "ticket", NONCE, "policy", 1, "bundle", b"key", STANDING),
    Need(("ab" * 32,)),
    Answer("ear", "chain", 0, 1, 1_000, 60_000, NONCE),
    Done(),
    AttestNow(NONCE),
    Quarantined(CAUSE),
    Released("order"),
    PolicyChanged(2, "document"),
    AskDenials(),
    Reachable(("127.0.0.1:9443", "[::1]:9443")),
    AskHold(4, (Drift("file-modified", "files", "/srv/app/main.py", "ab" * 32),)),
    Hold(4, held=True, closed=1, live=4),
    HoldOver("there is room for it to close"),
    Placed(Whereabouts("a" * 64, "uid", "default", "web", "node-1", pids=True)),
    Noted(ALERT, 3),
    Alerted((ALERT, ALERT)),
    Denials(
        3, (Denied(INSTANCE, "spiffe://a/b", "c-1", (DeniedLeaf(b"\x81", "ab" * 32, 5),), ("[::1]:9443",)),), b"crl"
    ),
)


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_every_message_reads_back_with_its_number(message: Message) -> None:
    frame = messages.decode(messages.encode(message, 7))
    assert (frame.message, frame.number) == (message, 7)


@pytest.mark.parametrize(
    "envelope",
    [
        [],
        {},
        {"is": "Done", "no": 1},
        {"is": "Done", "no": 1, "in": {}, "more": 1},
        {"is": "Nothing", "no": 1, "in": {}},
        {"is": ["Done"], "no": 1, "in": {}},
        {"is": "Done", "no": -1, "in": {}},
        {"is": "Done", "no": True, "in": {}},
        {"is": "Done", "no": 1, "in": []},
        {"is": "Done", "no": 1, "in": {"x": 1}},
        {"is": "Need", "no": 1, "in": {}},
        {"is": "Need", "no": 1, "in": {"digests": [1]}},
        {"is": "Attest", "no": 1, "in": {"evidence": "text"}},
        {"is": "Attest", "no": 1, "in": {"evidence": b"", "bodies": [{"digest": "x"}]}},
    ],
)
def test_a_frame_that_is_no_message_is_refused(envelope: object) -> None:
    with pytest.raises(InvalidInput):
        messages.decode(cbor.dumps(envelope))


@given(st.binary(max_size=100))
def test_whatever_bytes_come_they_are_a_message_or_refused(data: bytes) -> None:
    try:
        frame = messages.decode(data)
    except InvalidInput:
        return
    assert messages.encode(frame.message, frame.number) == data


def test_a_frame_that_would_be_too_large_is_not_sent() -> None:
    with pytest.raises(InvalidInput, match="bytes"):
        messages.encode(Attest(b"", (Body("ab" * 32, bytes(messages.MOST_FRAME)),)))


@pytest.mark.parametrize("kind", list(Kind))
def test_every_refusal_survives_the_way_as_a_problem(kind: Kind) -> None:
    sent = Rejected("what", kind=kind, where="where", mend="mend", faults=(Fault(3, "profile", "another"),))
    read = problems.error_of(problems.from_json(problems.to_json(problems.of(sent))))
    assert (read.what, read.where, read.mend) == ("what", "where", "mend")
    if kind in (Kind.UNAVAILABLE, Kind.INTERNAL):
        assert isinstance(read, Unavailable)
    else:
        assert isinstance(read, Rejected)
        assert (read.kind, read.faults) == (kind, sent.faults)


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (InvalidInput("x"), "malformed", 400),
        (Unavailable("x"), "unavailable", 503),
        (ProofbeatError("x"), "internal", 500),
        (Refused("x", kind="instance-quarantined"), "instance-quarantined", 403),
        (Refused("x", kind="token-expired"), "token-expired", 401),
    ],
)
def test_each_error_has_its_type_and_status(error: ProofbeatError, kind: str, status: int) -> None:
    document = json.loads(problems.to_json(problems.of(error)))
    assert document["type"] == f"https://proofbeat.dev/problems/{kind}"
    assert document["status"] == status


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"type":"x"}', b"<html>"])
def test_a_document_that_is_no_problem_of_ours_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        problems.from_json(body)


def test_a_problem_as_an_answer_is_raised_and_a_request_is_no_answer() -> None:
    with pytest.raises(Rejected) as rejected:
        link.checked(PROBLEM)
    assert rejected.value.kind == "leaf-key"
    with pytest.raises(InvalidInput):
        link.checked(AskNonce())
    assert link.checked(NONCE) == NONCE


def test_a_proof_holds_for_its_key_and_its_purpose_only() -> None:
    sealed = proofs.seal(Hello(INSTANCE, b"challenge"), Purpose.SESSION, KEY)
    opened = Opened(sealed)
    assert opened.claimed(Hello).challenge == b"challenge"
    opened.check(Purpose.SESSION, KEY.public_key())
    for purpose, key in ((Purpose.POST, KEY), (Purpose.SESSION, ec.generate_private_key(ec.SECP256R1()))):
        with pytest.raises(Refused) as refused:
            opened.check(purpose, key.public_key())
        assert refused.value.kind == "proof-invalid"
    with pytest.raises(InvalidInput):
        opened.claimed(Posted)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xd2", cose.sign1(b"no message", KEY), cose.sign1(b"", KEY)],
    ids=["empty", "cut short", "of no message", "of nothing"],
)
def test_a_proof_that_does_not_parse_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        Opened(data)


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_longer_than_the_longest(attempt: int, chance: float) -> None:
    assert 0 <= backoff.delay(attempt, chance) <= backoff.MOST


def test_pauses_grow_and_are_spread_over_their_whole_length() -> None:
    most = [backoff.delay(attempt, 1.0) for attempt in range(8)]
    assert most == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    assert backoff.delay(5, 0.0) == 0.0
    assert backoff.delay(5, 0.5) == 4.0


@pytest.mark.parametrize("bundle", ["", "nonsense"])
def test_a_bundle_without_a_ca_is_refused_at_once(bundle: str) -> None:
    with pytest.raises(InvalidConfiguration):
        tls.client_context(bundle, "example.org")
    with pytest.raises(InvalidConfiguration):
        AuthorityClient(Endpoint("https://127.0.0.1:1", "example.org", bundle), lambda _: None)


def test_the_longest_list_of_denials_there_may_be_fits_into_a_frame() -> None:
    each = MOST_DENIED_LEAVES // MOST_DENIED
    leaves = (DeniedLeaf(b"\xff" * 16, "ab" * 32, 1 << 42),) * each
    places = ("[2001:db8:1111:2222:3333:4444:5555:6666]:65535",) * (MOST_DENIED_ADDRESSES // MOST_DENIED)
    denied = Denied(INSTANCE, "spiffe://town.example/" + "x" * 200, "c-" + "0" * 32, leaves, places)
    message = Denials(1 << 40, (denied,) * MOST_DENIED, b"crl" * 30_000)
    assert messages.decode(messages.encode(message)).message == message
