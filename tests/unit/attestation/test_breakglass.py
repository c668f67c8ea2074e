"""A break-glass order: exact, signed by several people on several machines, and never taken for anything else."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from attestation import breakglass, jws, keys, release
from attestation.breakglass import Order, Reach, Scope, Signed, Subject, from_text, to_text
from attestation.errors import InvalidInput, MalformedResult
from attestation.instance import InstanceId
from attestation.release import ReleaseOrder
from attestation.spiffe import SpiffeId

ADA, GRACE = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
WEB = "spiffe://example.org/web"
INSTANCE = InstanceId("i-" + "0" * 32)
ORDER = Order(
    trust_domain="example.org",
    scope=Scope(Reach.REGISTRATIONS, ("web",), (WEB,)),
    issued_at=1_000,
    not_before=1_000,
    not_after=2_800,
    reason="a release that nobody referenced",
    least_epoch=3,
    salt="ab" * 16,
)
SIGNED = Signed(ORDER).with_signature(ADA).with_signature(GRACE)
OPERATORS: tuple[keys.VerifyingKey, ...] = (ADA.public_key(), GRACE.public_key())


def subject(registration: str = "web", namespace: str = "default", identity: str = WEB) -> Subject:
    return Subject(registration, namespace, SpiffeId.parse(identity), INSTANCE)


def written(**changes: Any) -> str:
    """The order with other fields, spelled as one would be and signed by nobody."""
    return to_text(Signed(replace(ORDER, **changes)))


def respelled(change: Any) -> str:
    """The signed document with its payload's JSON changed."""
    document = json.loads(to_text(SIGNED))
    body = json.loads(base64.urlsafe_b64decode(document["payload"] + "=="))
    document["payload"] = base64.urlsafe_b64encode(change(body)).rstrip(b"=").decode()
    return json.dumps(document)


def test_what_is_written_is_read_again_with_every_signature() -> None:
    assert from_text(to_text(SIGNED)) == SIGNED
    assert SIGNED.signatories(OPERATORS) == {keys.thumbprint(key) for key in OPERATORS}


def test_each_signature_can_be_made_on_another_machine_from_the_file_alone() -> None:
    first = to_text(Signed(ORDER).with_signature(ADA))
    second = to_text(from_text(first).with_signature(GRACE))
    assert len(from_text(second).signatories(OPERATORS)) == 2


def test_any_library_that_knows_jws_can_check_it() -> None:
    document = json.loads(to_text(SIGNED))
    signatures: list[dict[str, str]] = document["signatures"]
    for signature, public in zip(signatures, OPERATORS, strict=True):
        token = f"{signature['protected']}.{document['payload']}.{signature['signature']}"
        assert jws.open_signed(token, public, kind="proofbeat-breakglass+jws") == breakglass.payload(ORDER)


def test_one_operator_counts_once_however_often_the_signature_is_there() -> None:
    twice = replace(SIGNED, signatures=(SIGNED.signatures[0],) * 5)
    assert len(twice.signatories(OPERATORS)) == 1
    assert len(SIGNED.with_signature(ADA).signatures) == 2


def test_a_signature_under_another_operators_name_is_nobodys() -> None:
    lent = replace(SIGNED.signatures[0], kid=SIGNED.signatures[1].kid)
    assert replace(SIGNED, signatures=(lent,)).signatories(OPERATORS) == frozenset()


def test_a_key_that_is_not_asked_for_does_not_count() -> None:
    assert SIGNED.signatories(OPERATORS[:1]) == {keys.thumbprint(ADA.public_key())}


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": Scope(Reach.REGISTRATIONS, ("db",), (WEB,))},
        {"scope": Scope(Reach.MESH)},
        {"not_after": 2_801},
        {"trust_domain": "example.com", "scope": Scope(Reach.MESH)},
        {"reason": "another one"},
        {"least_epoch": 2},
        {"salt": "cd" * 16},
    ],
)
def test_a_signature_over_another_order_does_not_hold(changes: dict[str, Any]) -> None:
    assert replace(SIGNED, order=replace(ORDER, **changes)).signatories(OPERATORS) == frozenset()


def test_a_signature_made_for_another_purpose_does_not_hold() -> None:
    token = jws.sign(breakglass.payload(ORDER), GRACE, kind=release.KIND)
    protected, _, value = token.split(".")
    foreign = replace(SIGNED.signatures[1], protected=protected, value=value)
    assert replace(SIGNED, signatures=(foreign,)).signatories(OPERATORS) == frozenset()


def test_an_order_is_no_release() -> None:
    token = jws.sign(breakglass.payload(ORDER), GRACE, kind=breakglass.KIND)
    with pytest.raises(MalformedResult, match="no proofbeat-release"):
        release.parse(token, GRACE.public_key())
    signer = jws.Signer(GRACE)
    with pytest.raises(MalformedResult, match="no proofbeat-breakglass"):
        released = release.sign(ReleaseOrder(INSTANCE, (), 1), signer)
        jws.open_signed(released, GRACE.public_key(), kind=breakglass.KIND)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"not_after": 1_000}, "ends before it begins"),
        ({"not_before": 999}, "begins before it was made"),
        ({"not_before": 90_000, "not_after": 90_001}, "more than 24 h after it was made"),
        ({"not_after": 1 << 60}, "no time that a clock shows"),
        ({"reason": "  "}, "without a reason"),
        ({"reason": "\x1b[2J"}, "reason that is no line"),
        ({"reason": "why " * 200}, "reason that is no line"),
        ({"least_epoch": -1}, "epoch below zero"),
        ({"salt": "ab"}, "without a salt"),
        ({"waives": "tamper"}, "waives more than drift"),
        ({"trust_domain": "Example.org"}, "no trust domain"),
        ({"scope": Scope(Reach.REGISTRATIONS)}, "scope that is exact"),
        ({"scope": Scope(Reach.REGISTRATIONS, ("web",), ())}, "scope that is exact"),
        ({"scope": Scope(Reach.REGISTRATIONS, ("web", "web"), (WEB,))}, "scope that is exact"),
        ({"scope": Scope(Reach.REGISTRATIONS, ("*",), (WEB,))}, "scope that is exact"),
        ({"scope": Scope(Reach.NAMESPACE, ("a", "b"), (WEB,))}, "scope that is exact"),
        ({"scope": Scope(Reach.MESH, ("web",), (WEB,))}, "scope that is exact"),
        ({"scope": Scope(Reach.INSTANCE, ("web",), (WEB,))}, "scope that is exact"),
        ({"scope": Scope(Reach.REGISTRATIONS, ("web",), ("spiffe://example.com/web",))}, "scope that is exact"),
    ],
)
def test_an_order_that_is_not_exact_is_none(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(MalformedResult, match=complaint):
        from_text(written(**changes))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"payload": "e30", "signatures": []}',
        '{"payload": "!", "signatures": []}',
        '{"payload": 1, "signatures": []}',
        to_text(SIGNED).replace('"header"', '"headers"'),
        to_text(SIGNED).replace('"kid"', '"x5c"'),
        respelled(lambda body: json.dumps(body, indent=1).encode()),
        respelled(lambda body: json.dumps({**body, "until": 5}, separators=(",", ":"), sort_keys=True).encode()),
        respelled(
            lambda body: json.dumps({**body, "not_after": 2800.0}, separators=(",", ":"), sort_keys=True).encode()
        ),
        "[" * 100_000,
        " " * (breakglass.MOST_BYTES + 1),
    ],
)
def test_what_is_spelled_otherwise_is_refused_whole(text: str) -> None:
    with pytest.raises(MalformedResult):
        from_text(text)


@given(st.text(max_size=200))
def test_no_text_does_anything_but_read_or_be_refused(text: str) -> None:
    try:
        from_text(text)
    except MalformedResult:
        return
    raise AssertionError("random text was an order")


def test_more_signatures_than_there_is_room_for_are_refused() -> None:
    full = replace(SIGNED, signatures=tuple(replace(SIGNED.signatures[0], kid=f"{n:064x}") for n in range(32)))
    assert len(from_text(to_text(full)).signatures) == 32
    with pytest.raises(InvalidInput, match="enough"):
        full.with_signature(GRACE)
    with pytest.raises(MalformedResult):
        from_text(to_text(replace(full, signatures=(*full.signatures, SIGNED.signatures[0]))))


def test_only_the_named_registration_under_its_named_identity_is_in_scope() -> None:
    assert ORDER.scope.covers(subject())
    assert not ORDER.scope.covers(subject(registration="db"))
    assert not ORDER.scope.covers(subject(identity="spiffe://example.org/db"))


def test_a_registration_that_moves_into_the_namespace_is_not_in_scope_unless_its_identity_was_there() -> None:
    scope = Scope(Reach.NAMESPACE, ("payments",), (WEB,))
    assert scope.covers(subject("payments/web", "payments"))
    assert not scope.covers(subject("payments/db", "payments", "spiffe://example.org/db"))
    assert not scope.covers(subject("web", "default"))


def test_an_instance_is_in_scope_alone_and_under_its_identity() -> None:
    scope = Scope(Reach.INSTANCE, (INSTANCE.value,), (WEB,))
    assert scope.covers(subject())
    assert not scope.covers(replace(subject(), instance=InstanceId("i-" + "1" * 32)))
    assert not scope.covers(subject(identity="spiffe://example.org/db"))


def test_it_is_in_force_from_its_beginning_to_just_before_its_end() -> None:
    assert [ORDER.in_force(at) for at in (999.9, 1_000, 2_799.9, 2_800)] == [False, True, True, False]


def test_two_orders_of_the_same_words_have_different_ids() -> None:
    assert ORDER.id == from_text(to_text(SIGNED)).order.id
    assert ORDER.id != replace(ORDER, salt="cd" * 16).id
