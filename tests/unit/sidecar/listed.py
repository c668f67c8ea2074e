"""A town's authority, and the lists of whom to refuse that it makes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from attestation.instance import InstanceId
from attestation.spiffe import SpiffeId
from authority.issuer import ca as authorities
from authority.issuer import crl, leaf
from authority.issuer.ca import Ca
from authority.issuer.crl import Revoked
from authority.issuer.leaf import Leaf
from sidecar.answers import Membership
from wire.messages import Denials, Denied, DeniedLeaf

START = datetime(2026, 1, 1, tzinfo=UTC)
WEB, DB = "spiffe://example.org/web", "spiffe://example.org/db"
SERIAL = 0x0123_4567_89AB
INSTANCE = InstanceId("i-" + "1" * 32)
CAUSE = "c-" + "2" * 32
FINGERPRINT = "3" * 64
ADDRESS = "192.0.2.7:9443"


def made(folder: Path, start: datetime = START) -> Ca:
    return authorities.generate(folder, "Town", 3600, now=start)


def member(ca: Ca) -> Membership:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    return Membership(SpiffeId.parse(WEB), ca.bundle.encode(), (ca.root,), public)


def chain(ca: Ca) -> bytes:
    """Our own."""
    return issued(ca, WEB, InstanceId("i-" + "0" * 32))


def issued(ca: Ca, spiffe_id: str, instance: InstanceId) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    start = ca.intermediate.not_valid_before_utc
    held = Leaf(SpiffeId.parse(spiffe_id), instance, key, SERIAL, start, start + timedelta(minutes=5), "ear")
    return leaf.sign(held, ca).encode()


def denied(*addresses: str, spiffe_id: str = DB) -> Denied:
    held = DeniedLeaf(SERIAL.to_bytes(6, "big"), FINGERPRINT, int(START.timestamp() * 1000))
    return Denied(INSTANCE, spiffe_id, CAUSE, (held,), addresses)


def told(ca: Ca, *listed: Denied, version: int = 4, serials: tuple[int, ...] | None = None) -> Denials:
    """serials: in the CRL; by default those of the list."""
    named = serials if serials is not None else tuple(SERIAL for each in listed for _ in each.leaves)
    made = ca.intermediate.not_valid_before_utc + authorities.BACKDATE
    revoked = [Revoked(serial, made) for serial in named]
    return Denials(version, listed, crl.sign(revoked, version, made, ca))
