"""The CA, its files, and the leaves it signs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store

from attestation import keys
from attestation.errors import InvalidConfiguration, Unavailable
from attestation.instance import InstanceId
from attestation.spiffe import SpiffeId
from authority.issuer import bundle, crl, leaf
from authority.issuer import ca as authorities
from authority.issuer.ca import Ca
from authority.issuer.crl import Revoked
from authority.issuer.leaf import Leaf

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1()).public_key()


@pytest.fixture
def made(tmp_path: Path) -> Ca:
    return authorities.generate(tmp_path / "ca", "Town", 3600, now=NOW)


def a_leaf(end: datetime = NOW + timedelta(minutes=1)) -> Leaf:
    identity = SpiffeId("example.org", "/web")
    return Leaf(identity, InstanceId("i-" + "0" * 32), KEY, 7, NOW - timedelta(seconds=30), end, "ear")


def test_a_ca_reads_back_and_its_files_are_private(tmp_path: Path, made: Ca) -> None:
    folder = tmp_path / "ca"
    loaded = authorities.load(folder, allow_demo=False)
    assert (loaded.root, loaded.intermediate) == (made.root, made.intermediate)
    assert loaded.key.public_key() == made.key.public_key()
    assert loaded.result_key.public_key() == made.result_key.public_key()
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    names = {keys.thumbprint(each.public_key()) for each in (made.key, made.result_key)}
    root = made.root.public_key()
    assert isinstance(root, ec.EllipticCurvePublicKey)
    assert len(names | {keys.thumbprint(root)}) == 3


def test_ca_certificates_keep_the_x509_svid_rules(made: Ca) -> None:
    for certificate, length in ((made.root, 1), (made.intermediate, 0)):
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, length)
        assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)
        with pytest.raises(x509.ExtensionNotFound):
            certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_nothing_is_ever_overwritten(tmp_path: Path, made: Ca) -> None:
    with pytest.raises(InvalidConfiguration, match="exists already"):
        authorities.generate(tmp_path / "ca", "Town", 3600, now=NOW)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path, made: Ca) -> None:
    (tmp_path / "ca" / "results.key").chmod(0o640)
    with pytest.raises(InvalidConfiguration, match="others can read"):
        authorities.load(tmp_path / "ca", allow_demo=False)


@pytest.mark.parametrize("damage", ["missing", "empty", "foreign"])
def test_a_ca_that_is_damaged_is_refused(tmp_path: Path, made: Ca, damage: str) -> None:
    path = tmp_path / "ca" / "intermediate.key"
    path.unlink()
    if damage != "missing":
        path.touch(0o600)
        foreign = authorities.key_pem(ec.generate_private_key(ec.SECP256R1()))
        path.write_text(foreign if damage == "foreign" else "")
    with pytest.raises(InvalidConfiguration):
        authorities.load(tmp_path / "ca", allow_demo=False)


def test_a_demos_ca_is_known_by_its_name(tmp_path: Path) -> None:
    authorities.generate(tmp_path, "DEMO - do not trust", 3600, now=NOW)
    authorities.load(tmp_path, allow_demo=True)
    with pytest.raises(InvalidConfiguration, match="demo"):
        authorities.load(tmp_path, allow_demo=False)


def test_the_same_leaf_is_the_same_certificate(made: Ca) -> None:
    assert leaf.sign(a_leaf(), made) == leaf.sign(a_leaf(), made)


@pytest.mark.parametrize("moment", [NOW, NOW + timedelta(seconds=59)])
def test_a_leaf_verifies_as_client_and_server_while_its_lease_lasts(made: Ca, moment: datetime) -> None:
    first, intermediate = x509.load_pem_x509_certificates(leaf.sign(a_leaf(), made).encode())
    verifier = PolicyBuilder().store(Store([made.root])).time(moment).build_client_verifier()
    assert verifier.verify(first, [intermediate]).subjects == [
        x509.UniformResourceIdentifier("spiffe://example.org/web")
    ]
    late = PolicyBuilder().store(Store([made.root])).time(NOW + timedelta(seconds=61)).build_client_verifier()
    with pytest.raises(x509.verification.VerificationError):
        late.verify(first, [intermediate])


def test_no_leaf_outlives_its_issuer(made: Ca) -> None:
    with pytest.raises(Unavailable, match="intermediate"):
        leaf.sign(a_leaf(NOW + timedelta(seconds=3601)), made)


def test_a_crl_names_what_is_revoked_outlasts_every_leaf_and_is_the_same_bytes_again(made: Ca) -> None:
    serial = (1 << 128) - 1
    signed = crl.sign([Revoked(serial, NOW)], 7, NOW, made)
    assert crl.sign([Revoked(serial, NOW)], 7, NOW, made) == signed
    read = x509.load_pem_x509_crl(signed)
    public = made.intermediate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert read.is_signature_valid(public)
    assert read.issuer == made.intermediate.subject
    assert [entry.serial_number for entry in read] == [serial]
    assert read.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7
    assert read.next_update_utc == made.intermediate.not_valid_after_utc
    assert read.last_update_utc == made.intermediate.not_valid_before_utc == NOW - timedelta(seconds=30)


def test_a_crl_is_there_before_anybody_is_revoked_and_never_older_than_its_issuer(made: Ca) -> None:
    read = x509.load_pem_x509_crl(crl.sign([], 0, datetime.fromtimestamp(0, UTC), made))
    assert (len(read), read.last_update_utc) == (0, made.intermediate.not_valid_before_utc)
    usage = made.intermediate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.value.crl_sign


def test_the_bundle_grows_its_sequence_and_holds_one_certificate_a_key(made: Ca) -> None:
    document = json.loads(bundle.document((made.root,), sequence=5))
    assert document["spiffe_sequence"] == 5
    assert [key["use"] for key in document["keys"]] == ["x509-svid"]
    assert all("kid" not in key and len(key["x5c"]) == 1 for key in document["keys"])
