"""Signed reference values: what counts is a trusted key's signature over the very bytes that are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation import jws
from attestation.errors import InvalidConfiguration
from attestation.keys import SigningKey
from policies.model.load import load
from policies.model.signing import KIND, Trust, beside, sign, signed_by, trusted
from tests.unit.policies.test_load import POLICY, REGISTRATION
from tests.unit.policies.test_load import REFERENCES as ENDLESS

KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
PERSON = ed25519.Ed25519PrivateKey.generate()
REFERENCES = f"{ENDLESS}  expires: 2099-12-31T00:00:00Z\n"
TRUST = Trust((KEY.public_key(), PERSON.public_key()))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Policy and registration in one file, reference values in another, signed by one who is trusted."""
    (tmp_path / "policy.yaml").write_text(f"{POLICY}---\n{REGISTRATION}")
    (tmp_path / "web.yaml").write_text(REFERENCES)
    beside(tmp_path / "web.yaml").write_text(sign(REFERENCES.encode(), KEY))
    return tmp_path


def fault(folder: Path, trust: Trust = TRUST) -> str:
    with pytest.raises(InvalidConfiguration) as raised:
        load([folder], trust=trust)
    return raised.value.sentence


@pytest.mark.parametrize("key", [KEY, PERSON])
def test_what_a_trusted_key_has_signed_is_read(files: Path, key: SigningKey) -> None:
    beside(files / "web.yaml").write_text(sign(REFERENCES.encode(), key) + "\n")
    assert load([files], trust=TRUST).governing.keys() == {"web"}


def test_without_anybody_who_has_to_sign_no_signature_is_looked_at(files: Path) -> None:
    beside(files / "web.yaml").write_text("anything")
    assert load([files]).governing.keys() == {"web"}


def test_policies_and_registrations_need_no_signature(files: Path) -> None:
    assert not beside(files / "policy.yaml").exists()
    assert load([files], trust=TRUST).governing


def test_what_nobody_has_signed_is_refused_with_its_place_and_how_to_mend_it(files: Path) -> None:
    beside(files / "web.yaml").unlink()
    said = fault(files)
    assert "web.yaml:1:1: reference values that nobody has signed" in said
    assert "proofbeat references sign --key KEY web.yaml" in said


@pytest.mark.parametrize(
    "token",
    [
        sign(REFERENCES.encode(), OTHER),
        sign(REFERENCES.replace("a" * 64, "b" * 64).encode(), KEY),
        sign(REFERENCES.encode() + b"\n", KEY),
        jws.sign(REFERENCES.encode(), KEY, kind=KIND),
        "..".join(jws.sign(REFERENCES.encode(), KEY, kind="proofbeat-policy+jws").split(".")[::2]),
        "",
        "..",
        "a..b",
        "\xff" * 100,
        "." * 5000,
    ],
    ids=[
        "another key",
        "other content",
        "a line more",
        "not detached",
        "another purpose",
        "empty",
        "dots",
        "letters",
        "no text",
        "long",
    ],
)
def test_any_other_signature_is_refused(files: Path, token: str) -> None:
    beside(files / "web.yaml").write_text(token)
    assert "web.yaml:1:1: reference values that no trusted key has signed as they are" in fault(files)


def test_a_signature_is_for_the_file_whatever_it_is_called_and_not_for_another(files: Path) -> None:
    shutil.move(files / "web.yaml", files / "renamed.yaml")
    shutil.move(beside(files / "web.yaml"), beside(files / "renamed.yaml"))
    assert load([files], trust=TRUST).governing
    (files / "more.yaml").write_text(REFERENCES.replace("name: web", "name: api"))
    shutil.copy(beside(files / "renamed.yaml"), beside(files / "more.yaml"))
    assert "more.yaml:1:1" in fault(files)


def test_every_document_with_reference_values_in_a_file_is_under_its_signature(files: Path) -> None:
    both = f"{REFERENCES}---\n{REFERENCES.replace('name: web', 'name: api')}"
    (files / "web.yaml").write_text(both)
    assert "web.yaml:1:1" in fault(files)
    beside(files / "web.yaml").write_text(sign(both.encode(), KEY))
    assert load([files], trust=TRUST).governing


@pytest.mark.parametrize("beside_it", ["", f"{REFERENCES.replace('name: web', 'name: api')}---\n"])
def test_signed_reference_values_that_never_expire_are_refused(files: Path, beside_it: str) -> None:
    """An old file and its signature can be put back, and for ever if nothing ends it."""
    endless = f"{beside_it}{ENDLESS}"
    (files / "web.yaml").write_text(endless)
    beside(files / "web.yaml").write_text(sign(endless.encode(), KEY))
    said = fault(files)
    assert f"web.yaml:{1 + beside_it.count(chr(10))}:1: signed reference values that never expire" in said
    assert "spec.expires" in said


def test_where_nobody_has_to_sign_reference_values_need_not_expire(files: Path) -> None:
    (files / "web.yaml").write_text(ENDLESS)
    assert load([files]).governing


def test_an_heir_that_expires_does_not_vouch_for_a_base_that_does_not(files: Path) -> None:
    both = f"{ENDLESS.replace('name: web', 'name: base')}---\n{REFERENCES}  inherits: [base]\n"
    (files / "web.yaml").write_text(both)
    beside(files / "web.yaml").write_text(sign(both.encode(), KEY))
    assert "web.yaml:1:1: signed reference values that never expire" in fault(files)


def test_keys_are_read_from_pem_and_what_is_no_such_key_is_named(tmp_path: Path) -> None:
    good, bad, wrong = tmp_path / "key.pem", tmp_path / "bad.pem", tmp_path / "rsa.pem"
    pem, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    good.write_bytes(KEY.public_key().public_bytes(pem, form))
    bad.write_text("no key")
    wrong.write_bytes(rsa.generate_private_key(65537, 2048).public_key().public_bytes(pem, form))
    assert trusted([good]).known == (KEY.public_key(),)
    for path in (bad, wrong, tmp_path / "absent.pem"):
        with pytest.raises(InvalidConfiguration, match=path.name):
            trusted([good, path])


CONTENT = REFERENCES.encode()
TOKEN = sign(CONTENT, KEY)


@settings(deadline=None)
@given(st.integers(0, len(TOKEN) - 1), st.characters(min_codepoint=33, max_codepoint=126))
def test_no_character_of_a_signature_can_be_another_one(at: int, character: str) -> None:
    changed = TOKEN[:at] + character + TOKEN[at + 1 :]
    found = signed_by(CONTENT, changed, TRUST.known)
    assert (found is not None) is (changed == TOKEN)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_a_signature_is_for_no_other_bytes(content: bytes) -> None:
    assert signed_by(content, TOKEN, TRUST.known) is None
    assert signed_by(content, sign(content, PERSON), TRUST.known) == PERSON.public_key()
