"""One set of claims and the keys around it."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from attestation import keys
from attestation.claims import Claims, LayerClaim
from attestation.coverage import CollectorCoverage, Coverage, Cutting, Grade, Isolation, Mechanism
from attestation.instance import InstanceId
from attestation.layers import Layer, Method
from attestation.results import Result
from attestation.spiffe import SpiffeId
from attestation.trust import Tier, TrustVector

KEY, LEAF, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
INSTANCE = InstanceId("i-" + "0123456789abcdef" * 2)
NONCE = bytes(range(61))

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
        Isolation(True, True, False, False),
    ),
)

RESULT = Result(
    status=Tier.AFFIRMING,
    vector=TrustVector(instance_identity=2, file_system=2, executables=3),
    nonce=NONCE,
    issued_at=1_000,
    expires_at=1_060,
    verifier="the authority",
    instance=INSTANCE,
    spiffe_id=SpiffeId("example.org", "/web"),
    mode="enforce",
    generation=2,
    policy_epoch=3,
    policy_digest="c" * 64,
)
