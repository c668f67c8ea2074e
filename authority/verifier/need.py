"""Which bodies an appraisal wants, and whether those that came are the ones that were claimed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from attestation import parts
from attestation.bodies import DIGEST_OF
from attestation.claims import Claims
from attestation.digests import Digest
from attestation.errors import Refused
from attestation.layers import Layer
from authority.verifier.cache import Bodies
from policies.model.policy import AttestationPolicy, Demand
from wire.messages import MOST_BODY, Attest, Body, Need, Outline
from wire.problems import Kind


def wanted(claims: Claims, policy: AttestationPolicy) -> dict[Digest, Layer]:
    """The bodies that an appraisal of these claims reads."""
    return {
        claim.digest: claim.layer
        for claim in claims.layers
        if claim.layer in DIGEST_OF and policy.spec.demand(claim.layer) is not Demand.OFF
    }


def take(given: Attest, asked: dict[Digest, Layer], scope: str, bodies: Bodies) -> dict[Digest, bytes]:
    """Every body that is at hand: given just now, checked by hashing it, or seen before in this scope.

    Raises Refused (body-mismatch, too-large), MalformedEvidence for an outline that is none.
    """
    found: dict[Digest, bytes] = {}
    for body, outline in (*((each, ()) for each in given.bodies), *_together(given, asked, scope, bodies)):
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
        bodies.put(scope, body.digest, body.content, in_parts=layer is Layer.FILES, outline=outline)
        found[body.digest] = body.content
    for digest in asked.keys() - found.keys():
        seen = bodies.get(scope, digest)
        if seen is not None:
            found[digest] = seen
    return found


def missing(given: Attest, claims: Claims, digests: Iterable[Digest], scope: str, bodies: Bodies) -> Need:
    """What to ask for, so that these bodies are at hand.

    Of a large manifest of files first the outline, where the asked can give one and something like it was seen; then
    the parts that nobody of this scope has sent.
    """
    files = {claim.digest: claim.items for claim in claims.layers if claim.layer is Layer.FILES}
    outlines = {each.digest: each for each in given.outlines}
    whole: list[Digest] = []
    outlined: list[Digest] = []
    lacking: dict[Digest, None] = {}
    for digest in sorted(digests):
        if digest in outlines:
            lacking.update(dict.fromkeys(_lacking(outlines[digest], scope, bodies)))
        elif given.in_parts and files.get(digest, 0) >= parts.LEAST_ENTRIES and bodies.has_parts(scope):
            outlined.append(digest)
        else:
            whole.append(digest)
    return Need(tuple(whole), tuple(outlined), tuple(lacking))


def _lacking(outline: Outline, scope: str, bodies: Bodies) -> list[Digest]:
    return [each for each in parts.read_outline(outline.parts) if bodies.part(scope, each) is None]


_Lengths = tuple[tuple[Digest, int], ...]


def _together(given: Attest, asked: Container[Digest], scope: str, bodies: Bodies) -> Iterator[tuple[Body, _Lengths]]:
    """Those bodies of which every part is at hand, each with its parts' digests and lengths.

    Each is hashed as a whole by whoever takes it.
    """
    sent = {parts.digest(each): each for each in given.parts}
    for outline in (each for each in given.outlines if each.digest in asked):
        named, pieces = parts.read_outline(outline.parts), list[bytes]()
        for each in named:
            piece = sent.get(each) or bodies.part(scope, each)
            if piece is None:
                break
            pieces.append(piece)
        else:
            if sum(map(len, pieces)) <= MOST_BODY:
                yield Body(outline.digest, b"".join(pieces)), tuple(zip(named, map(len, pieces), strict=True))
