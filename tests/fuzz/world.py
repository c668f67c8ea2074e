"""One instance, its keys and what is said about it: the same in every run, so that a finding stays one."""

from __future__ import annotations

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import ec

from attestation import jws, keys
from attestation.coverage import Isolation
from tests.unit.attestation import world

KEY = ec.derive_private_key(0xC0FFEE, ec.SECP256R1())
LEAF = ec.derive_private_key(0xBEEF, ec.SECP256R1())
PUBLIC = KEY.public_key()
SIGNER = jws.Signer(KEY)
INSTANCE, NONCE = world.INSTANCE, world.NONCE
NOW = 1_700_000_000

CLAIMS = replace(
    world.CLAIMS,
    leaf_key=keys.public_der(LEAF.public_key()),
    coverage=replace(world.CLAIMS.coverage, isolation=Isolation()),
)

RESULT = replace(world.RESULT, issued_at=NOW, expires_at=NOW + 60, reasons=("files: as referenced",))
