"""Evidence as signed and as read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from attestation import cbor, claimset, cose, evidence, keys
from attestation.claims import Claims
from attestation.coverage import CALLS, EXECUTIONS, CollectorCoverage, Isolation, Mechanism
from attestation.errors import InvalidInput, MalformedEvidence
from attestation.layers import Layer
from tests.unit.attestation.world import CLAIMS, KEY, NONCE, OTHER

SIGNED = evidence.sign(CLAIMS, NONCE, KEY, issued_at=1234.5)


def _payload() -> dict[int, Any]:
    value: dict[int, Any] = cbor.loads(cose.parse(SIGNED).payload)
    return value


def _resigned(change: Callable[[dict[int, Any]], None]) -> bytes:
    payload = _payload()
    change(payload)
    return cose.sign1(cbor.dumps(payload), KEY, aad=b"proofbeat/evidence")


def test_evidence_says_what_was_signed_and_who_signed_it() -> None:
    told = evidence.verify(SIGNED)
    assert told.claims == CLAIMS
    assert told.nonce == NONCE == evidence.nonce_of(SIGNED)
    assert told.thumbprint == keys.thumbprint(KEY.public_key())
    assert told.issued_at == 1234


@pytest.mark.parametrize("name", [each.name for each in fields(Isolation)])
def test_every_word_of_isolation_is_told(name: str) -> None:
    coverage = CLAIMS.coverage
    changed = replace(coverage.isolation, **{name: not getattr(coverage.isolation, name)})
    claims = replace(CLAIMS, coverage=replace(coverage, isolation=changed))
    assert evidence.verify(evidence.sign(claims, NONCE, KEY, issued_at=1.0)).claims == claims


def test_evidence_of_wire_1_0_guarantees_nothing_of_what_it_does_not_know() -> None:
    assert _payload()[-70001][9][-1] == [True, True, False, False]
    assert CLAIMS.coverage.isolation == Isolation(True, True, False, False, True, False, False, True)


SERVING = replace(CLAIMS, served=(1 << 128) - 1)


def test_the_certificate_that_is_served_is_told_outside_the_layers() -> None:
    told = evidence.verify(evidence.sign(SERVING, NONCE, KEY, issued_at=1.0)).claims
    assert told == SERVING
    assert told.layers == CLAIMS.layers


def test_where_none_is_served_evidence_is_as_it_was_before_there_was_a_word_for_it() -> None:
    assert claimset.encode(CLAIMS).keys() == set(range(1, 10))


def test_to_a_reader_of_an_earlier_minor_the_served_certificate_is_not_told() -> None:
    assert claimset.encode(SERVING, minor=2) == claimset.encode(CLAIMS)
    assert claimset.encode(SERVING, minor=3) == claimset.encode(SERVING)
    told = evidence.verify(evidence.sign(SERVING, NONCE, KEY, issued_at=1.0, minor=2))
    assert told.claims == CLAIMS


def by(mechanism: Mechanism, name: str = EXECUTIONS) -> Claims:
    row = CollectorCoverage(name, Layer.PROCESSES, mechanism, 5.0, running=True)
    return replace(CLAIMS, coverage=replace(CLAIMS.coverage, collectors=(row,)))


def test_an_earlier_reader_hears_of_what_tells_of_executions_by_the_word_that_it_has_for_it() -> None:
    """Else it would take a measurer that is told of every execution for one that looks for them."""
    assert claimset.encode(by(Mechanism.BPF), minor=7) == claimset.encode(by(Mechanism.PROC_CONNECTOR))
    assert claimset.encode(by(Mechanism.BPF), minor=8) == claimset.encode(by(Mechanism.BPF))
    told = evidence.verify(evidence.sign(by(Mechanism.BPF), NONCE, KEY, issued_at=1.0)).claims
    assert told == by(Mechanism.BPF)
    assert claimset.encode(by(Mechanism.BPF, CALLS), minor=7) == claimset.encode(by(Mechanism.BPF, CALLS))


@pytest.mark.parametrize("number", [b"", b"\0", b"\0\7", b"\1" * 21, 7, None])
def test_what_is_no_serial_number_in_its_one_spelling_is_refused(number: object) -> None:
    with pytest.raises(MalformedEvidence):
        evidence.parse(_resigned(lambda payload: payload[-70001].update({10: number})))


def test_steady_state_evidence_stays_below_two_kilobytes() -> None:
    assert len(evidence.sign(SERVING, NONCE, KEY, issued_at=1.0)) < 2048


@pytest.mark.parametrize("position", [-1, -40, 100, 300])
def test_a_changed_byte_is_noticed(position: int) -> None:
    changed = bytearray(SIGNED)
    changed[position] ^= 1
    with pytest.raises(MalformedEvidence):
        evidence.verify(bytes(changed))


def test_a_signature_by_another_key_does_not_hold_and_parsing_alone_says_so() -> None:
    message = cose.parse(SIGNED)
    forged = cose.sign1(message.payload, OTHER, aad=b"proofbeat/evidence")
    assert not evidence.parse(forged).holds
    with pytest.raises(MalformedEvidence, match="signature"):
        evidence.verify(forged)


def test_a_signature_made_for_another_purpose_is_void() -> None:
    moved = cose.sign1(cose.parse(SIGNED).payload, KEY, aad=b"proofbeat/session")
    assert not evidence.parse(moved).holds


@pytest.mark.parametrize("algorithm", [-8, -35, 0, 5])
def test_an_algorithm_other_than_es256_never_verifies(algorithm: int) -> None:
    protected = cbor.dumps({1: algorithm})
    payload = cose.parse(SIGNED).payload
    to_sign = cbor.dumps(["Signature1", protected, b"proofbeat/evidence", payload])
    r, s = decode_dss_signature(KEY.sign(to_sign, ec.ECDSA(hashes.SHA256())))
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    forged = b"\xd2" + cbor.dumps([protected, {}, payload, signature])
    assert evidence.parse(forged).algorithm == algorithm
    with pytest.raises(MalformedEvidence, match="algorithm"):
        evidence.verify(forged)


def test_another_profile_is_refused() -> None:
    with pytest.raises(MalformedEvidence, match="profile"):
        evidence.verify(_resigned(lambda payload: payload.update({265: "tag:example.org,2025:x"})))


@pytest.mark.parametrize(
    "change",
    [
        lambda payload: payload.pop(10),
        lambda payload: payload.update({11: 1}),
        lambda payload: payload.update({10: b"short"}),
        lambda payload: payload.update({10: b"x" * 65}),
        lambda payload: payload.update({10: "text"}),
        lambda payload: payload.update({6: "now"}),
        lambda payload: payload.update({6: True}),
        lambda payload: payload.update({8: {}}),
        lambda payload: payload[8][1].update({-4: b"a private part"}),
        lambda payload: payload[8][1].update({-2: bytes(32)}),
        lambda payload: payload[8][1].update({-1: 2}),
        lambda payload: payload.update({-70001: []}),
        lambda payload: payload[-70001].pop(3),
        lambda payload: payload[-70001].update({11: 1}),
        lambda payload: payload[-70001].update({2: "7"}),
        lambda payload: payload[-70001].update({2: True}),
        lambda payload: payload[-70001].update({1: b"short"}),
        lambda payload: payload[-70001][8].append([99, bytes(32), 0, 0, 0, 0]),
        lambda payload: payload[-70001][8].append([0, bytes(31), 0, 0, 0, 0]),
        lambda payload: payload[-70001][8].append([0, bytes(32), 0, 0, 0]),
        lambda payload: payload[-70001][8].extend([[0, bytes(32), 0, 0, 0, 0]] * 9),
        lambda payload: payload[-70001][9].append(1),
        lambda payload: payload[-70001][9][4].__setitem__(0, 1),
        lambda payload: payload[-70001][9][0].append(["x"]),
        lambda payload: payload[-70001][9].__setitem__(2, -1),
    ],
)
def test_claims_that_are_missing_unknown_or_mistyped_are_refused(change: Callable[[dict[int, Any]], None]) -> None:
    with pytest.raises(MalformedEvidence):
        evidence.parse(_resigned(change))


def test_unsigned_headers_are_refused_for_they_make_two_messages_of_one() -> None:
    protected, _, payload, signature = cbor.loads(SIGNED[1:])
    with pytest.raises(MalformedEvidence):
        cose.parse(b"\xd2" + cbor.dumps([protected, {4: b"kid"}, payload, signature]))


def test_protected_headers_other_than_the_algorithm_are_refused() -> None:
    _, _, payload, signature = cbor.loads(SIGNED[1:])
    for header in ({1: -7, 4: b"kid"}, {}, {1: "ES256"}, {2: [1], 1: -7}):
        with pytest.raises(MalformedEvidence):
            cose.parse(b"\xd2" + cbor.dumps([cbor.dumps(header), {}, payload, signature]))


def test_a_message_without_its_tag_or_larger_than_allowed_is_refused() -> None:
    with pytest.raises(MalformedEvidence):
        evidence.parse(SIGNED[1:])
    with pytest.raises(MalformedEvidence, match="allowed"):
        evidence.parse(cose.sign1(bytes(evidence.MOST_BYTES), KEY))


def test_the_cose_working_groups_example_verifies() -> None:
    # RFC 9052 appendix C.2.1, whose unprotected `kid` we would refuse: hence the parts by hand.
    x = bytes.fromhex("bac5b11cad8f99f9c72b05cf4b9e26d244dc189f745228255a219a86d6a09eff")
    y = bytes.fromhex("20138bf82dc1b6d562be0fa54ab7804a3a64b6d72ccfed6b6fb6ed28bbfc117e")
    signature = bytes.fromhex(
        "8eb33e4ca31d1c465ab05aac34cc6b23d58fef5c083106c4d25a91aef0b0117e"
        "2af9a291aa32e14ab834dc56ed2a223444547e01f11d3b0916e5a4c345cacb36"
    )
    key = keys.from_cose({1: 2, -1: 1, -2: x, -3: y})
    message = cose.Sign1(cose.ES256, bytes.fromhex("a10126"), b"This is the content.", signature)
    assert message.holds(key)
    assert not replace(message, payload=b"This is other content").holds(key)
    assert not message.holds(key, aad=b"a purpose")


def test_the_claims_digest_changes_with_every_claim() -> None:
    variants = {
        evidence.claims_digest(each)
        for each in (CLAIMS, replace(CLAIMS, sequence=8), replace(CLAIMS, layers=()), replace(CLAIMS, boot_id=""))
    }
    assert len(variants) == 4


@pytest.mark.parametrize(
    "der", [b"", b"no key", keys.public_der(KEY.public_key()) + b"\0"], ids=["empty", "another text", "a byte more"]
)
def test_a_key_that_is_no_canonical_p256_key_is_refused(der: bytes) -> None:
    with pytest.raises(InvalidInput):
        keys.from_der(der)


def test_a_key_on_another_curve_is_refused() -> None:
    with pytest.raises(InvalidInput, match="P-256"):
        keys.from_der(keys.public_der(ec.generate_private_key(ec.SECP384R1()).public_key()))
