"""Results, releases and policy documents: what verifies, and what never does."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from attestation import cmw, jws, release, results
from attestation.errors import MalformedResult
from attestation.instance import InstanceId
from attestation.release import ReleaseOrder
from attestation.trust import Tier, TrustVector
from tests.unit.attestation.world import INSTANCE, KEY, OTHER, RESULT

SIGNER = jws.Signer(KEY)
PINNED = KEY.public_key()


def _changed(change: Callable[[dict[str, Any]], object]) -> str:
    token = json.loads(results.payload(RESULT))
    change(token)
    return results.sign_payload(json.dumps(token).encode(), SIGNER)


def _appraisal(token: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = token["submods"][results.SUBMODULE]
    return found


@pytest.mark.parametrize("profile", [results.VERAISON_PROFILE, results.IETF_PROFILE])
def test_a_result_reads_back_in_either_spelling(profile: str) -> None:
    assert results.parse(results.build(RESULT, SIGNER, profile=profile), PINNED, now=1_001) == RESULT


def test_what_is_held_says_so_and_what_is_not_says_nothing() -> None:
    held = replace(RESULT, status=Tier.WARNING, held="d-" + "0" * 32)
    assert results.parse(results.build(held, SIGNER), PINNED, now=1_001) == held
    assert "held" not in _appraisal(json.loads(results.payload(RESULT)))["proofbeat"]


def test_the_spelling_of_veraison_is_the_default() -> None:
    token = json.loads(results.payload(RESULT))
    assert token["eat_profile"] == "tag:github.com,2023:veraison/ear"
    assert token["ear.verifier-id"]["build"] == "the authority"
    assert _appraisal(token)["ear.status"] == "affirming"
    assert _appraisal(token)["ear.trustworthiness-vector"]["file-system"] == 2


def test_the_same_result_is_the_same_token() -> None:
    assert results.build(RESULT, SIGNER) == results.build(RESULT, SIGNER)


def test_a_result_has_ended_at_its_very_end() -> None:
    token = results.build(RESULT, SIGNER)
    results.parse(token, PINNED, now=1_059.9)
    with pytest.raises(MalformedResult, match="ended"):
        results.parse(token, PINNED, now=1_060)


def test_another_key_than_the_pinned_one_signed_nothing() -> None:
    with pytest.raises(MalformedResult):
        results.parse(results.build(RESULT, jws.Signer(OTHER)), PINNED, now=1_001)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS256", "ES384", "EdDSA"])
def test_any_algorithm_but_es256_is_refused(algorithm: str) -> None:
    _, body, signature = results.build(RESULT, SIGNER).split(".")
    header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "typ": results.KIND}).encode()).rstrip(b"=")
    for tail in (signature, ""):
        with pytest.raises(MalformedResult):
            results.parse(f"{header.decode()}.{body}.{tail}", PINNED, now=1_001)


def test_a_token_signed_for_one_purpose_is_void_for_every_other() -> None:
    order = release.sign(ReleaseOrder(INSTANCE, ("c-1",), 5), SIGNER)
    document = SIGNER.sign(b"{}", kind=results.POLICY_KIND)
    result = results.build(RESULT, SIGNER)
    with pytest.raises(MalformedResult):
        results.parse(order, PINNED, now=1_001)
    with pytest.raises(MalformedResult):
        release.parse(document, PINNED)
    with pytest.raises(MalformedResult):
        results.open_signed(result, PINNED)
    assert results.open_signed(document, PINNED) == b"{}"


def test_a_status_better_than_the_worst_claim_is_a_lie() -> None:
    liar = replace(RESULT, vector=TrustVector(executables=96))
    with pytest.raises(MalformedResult, match="better"):
        results.parse(results.build(liar, SIGNER), PINNED, now=1_001)
    strict = replace(RESULT, status=Tier.CONTRAINDICATED)
    assert results.parse(results.build(strict, SIGNER), PINNED, now=1_001).status is Tier.CONTRAINDICATED


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token.pop("eat_nonce"),
        lambda token: token.update({"eat_profile": "tag:example.org,2025:x"}),
        lambda token: token.update({"exp": "1060"}),
        lambda token: token.update({"exp": True}),
        lambda token: token.update({"eat_nonce": "not base64!"}),
        lambda token: token.update({"submods": {}}),
        lambda token: _appraisal(token).update({"ear.status": "splendid"}),
        lambda token: _appraisal(token)["ear.trustworthiness-vector"].update({"charm": 2}),
        lambda token: _appraisal(token)["ear.trustworthiness-vector"].update({"hardware": "2"}),
        lambda token: _appraisal(token)["ear.trustworthiness-vector"].update({"hardware": 1000}),
        lambda token: _appraisal(token)["proofbeat"].update({"mode": "lenient"}),
        lambda token: _appraisal(token)["proofbeat"].update({"instance": "pid 42"}),
        lambda token: _appraisal(token)["proofbeat"].update({"spiffe_id": "https://example.org/"}),
        lambda token: _appraisal(token).update({"ear.appraisal-policy-id": "some policy"}),
    ],
)
def test_claims_that_do_not_parse_are_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(MalformedResult):
        results.parse(_changed(change), PINNED, now=1_001)


def test_reasons_are_bounded() -> None:
    many = replace(RESULT, reasons=tuple("x" * 1000 for _ in range(100)))
    read = results.parse(results.build(many, SIGNER), PINNED, now=1_001)
    assert len(read.reasons) == results.MOST_REASONS
    assert {len(reason) for reason in read.reasons} == {results.MOST_REASON_TEXT}


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "x" * (results.MOST_BYTES + 1)])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(MalformedResult):
        results.parse(token, PINNED, now=1_001)


def _carrying(*extensions: tuple[x509.ExtensionType, bool]) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
    start = datetime(2025, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(PINNED).serial_number(1)
    builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=1))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(KEY, hashes.SHA256())


@pytest.mark.parametrize("length", [1, 50, 200, 5_000, 70_000])
def test_a_certificate_gives_back_the_result_it_carries(length: int) -> None:
    assert cmw.ear_of(_carrying((cmw.extension("e" * length), False))) == "e" * length


def test_the_extension_is_a_json_record_of_an_attestation_result() -> None:
    der = cmw.extension("ear").value
    assert der[0] == 0x0C
    assert json.loads(der[2:]) == ["application/eat+jwt", "ZWFy", 8]


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x0c",
        b"\x0c\x05abc",
        b"\x04" + cmw.extension("ear").value[1:],
        b"\x0c\x0f" + b'["a/b","ZWFy",8]'[:15],
        b"\x0c\x02{}",
        b"\x0c\x81\x02[]",
    ],
)
def test_an_extension_of_another_form_is_refused(der: bytes) -> None:
    with pytest.raises(MalformedResult):
        cmw.ear_of(_carrying((x509.UnrecognizedExtension(cmw.OID, der), False)))


def test_a_critical_extension_or_none_is_refused() -> None:
    with pytest.raises(MalformedResult, match="critical"):
        cmw.ear_of(_carrying((cmw.extension("ear"), True)))
    with pytest.raises(MalformedResult, match="carries no"):
        cmw.ear_of(_carrying())


def test_a_release_covers_what_it_names_and_is_void_after_a_later_cause() -> None:
    order = release.parse(release.sign(ReleaseOrder(INSTANCE, ("c-1", "c-2"), 5), SIGNER), PINNED)
    assert order.covers(INSTANCE, ["c-1"])
    assert order.covers(INSTANCE, ["c-2", "c-1"])
    assert not order.covers(INSTANCE, ["c-1", "c-3"])
    assert not order.covers(InstanceId("i-" + "f" * 32), ["c-1"])


def test_a_cause_is_named_by_everything_that_makes_it_one() -> None:
    names = {
        release.cause_id(INSTANCE, generation=generation, kind=kind, text=text, at_ms=at_ms)
        for generation in (1, 2)
        for kind in ("tamper", "order")
        for text in ("x", "y")
        for at_ms in (1, 2)
    }
    assert len(names) == 16
