"""One instance, its keys and what is said about it: the same in every run, so that a finding stays one."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from attestation import jws, keys
from attestation.claims import Claims, LayerClaim
from attestation.coverage import CollectorCoverage, Coverage, Cutting, Grade, Mechanism
from attestation.instance import InstanceId
from attestation.layers import Layer, Method
from attestation.results import Result
from attestation.spiffe import SpiffeId
from attestation.trust import Tier, TrustVector

KEY = ec.derive_private_key(0xC0FFEE, ec.SECP256R1())
LEAF = ec.derive_private_key(0xBEEF, ec.SECP256R1())
PUBLIC = KEY.public_key()
SIGNER = jws.Signer(KEY)
INSTANCE = InstanceId("i-" + "0123456789abcdef" * 2)
NONCE = bytes(range(61))
NOW = 1_700_000_000

CLAIMS = Claims(
    instance=INSTANCE,
    sequence=7,
    generation=2,
    policy_epoch=3,
    revocation=1,
    leaf_key=keys.public_der(LEAF.public_key()),
    boot_id="1b4e28ba-2fa1-11d2-883f-0016d3cca427",
    layers=(
        LayerClaim(Layer.FILES, "a" * 64, Method.EVENT, 12, 40_000, 1000),
        LayerClaim(Layer.PROCESSES, "b" * 64, Method.FULL, 3, 3, 4),
    ),
    coverage=Coverage(
        (
            CollectorCoverage("files.fanotify", Layer.FILES, Mechanism.FANOTIFY, 1.5, running=True, lost=2),
            CollectorCoverage("processes.poll", Layer.PROCESSES, Mechanism.POLL, 50.0, running=False, detail="died"),
        ),
        (Layer.MEMORY, Layer.HARDWARE),
        Cutting.KILL,
        Grade.CLOSED_BY_GUARDIAN,
    ),
)

RESULT = Result(
    status=Tier.AFFIRMING,
    vector=TrustVector(instance_identity=2, file_system=2, executables=3),
    nonce=NONCE,
    issued_at=NOW,
    expires_at=NOW + 60,
    verifier="the authority",
    instance=INSTANCE,
    spiffe_id=SpiffeId("example.org", "/web"),
    mode="enforce",
    generation=2,
    policy_epoch=3,
    policy_digest="c" * 64,
    reasons=("files: as referenced",),
)
