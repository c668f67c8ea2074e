"""Which bodies an appraisal wants, and whether those that came are the ones that were claimed."""

from __future__ import annotations

from collections.abc import Iterable

from attestation.bodies import DIGEST_OF
from attestation.claims import Claims
from attestation.digests import Digest
from attestation.errors import Refused
from attestation.layers import Layer
from authority.verifier.cache import Bodies
from policies.model.policy import AttestationPolicy, Demand
from wire.messages import MOST_BODY, Body
from wire.problems import Kind


def wanted(claims: Claims, policy: AttestationPolicy) -> dict[Digest, Layer]:
    """The bodies that an appraisal of these claims reads."""
    return {
        claim.digest: claim.layer
        for claim in claims.layers
        if claim.layer in DIGEST_OF and policy.spec.demand(claim.layer) is not Demand.OFF
    }


def take(given: Iterable[Body], asked: dict[Digest, Layer], scope: str, bodies: Bodies) -> dict[Digest, bytes]:
    """Every body that is at hand: given just now, checked by hashing it, or seen before in this scope.

    Raises Refused (body-mismatch, too-large).
    """
    found: dict[Digest, bytes] = {}
    for body in given:
        layer = asked.get(body.digest)
        if len(body.content) > MOST_BODY:
            raise Refused(f"a body of {len(body.content)} bytes", kind=Kind.TOO_LARGE, where="bodies")
        if layer is None or DIGEST_OF[layer](body.content) != body.digest:
            raise Refused(
                f"a body that is not what the evidence claims as {body.digest[:12]}",
                kind=Kind.BODY_MISMATCH,
                where="bodies",
                mend="Send exactly the bytes that were measured for this round.",
            )
        bodies.put(scope, body.digest, body.content)
        found[body.digest] = body.content
    for digest in asked.keys() - found.keys():
        seen = bodies.get(scope, digest)
        if seen is not None:
            found[digest] = seen
    return found
