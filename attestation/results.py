"""Attestation results: EAR (draft-ietf-rats-ear) as JWT, signed with ES256.

Two spellings exist. Veraison's, with dots, is emitted by default; the IETF draft's, with underscores, is accepted.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, fields
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attestation import digests, jws, strictjson
from attestation.digests import Digest
from attestation.errors import InvalidInput, MalformedResult
from attestation.instance import InstanceId
from attestation.spiffe import SpiffeId
from attestation.trust import Tier, TrustVector

VERAISON_PROFILE = "tag:github.com,2023:veraison/ear"
IETF_PROFILE = "tag:ietf.org,2026:rats/ear#03"
KIND = "eat+jwt"
POLICY_KIND = "proofbeat-policy+jws"
MOST_BYTES = 32 * 1024
MOST_REASONS, MOST_REASON_TEXT = 16, 300
MODES = ("observe", "audit", "enforce")
SUBMODULE = "workload"

_WHERE = "EAR"
_BEYOND = 1 << 63
_SEPARATORS = {VERAISON_PROFILE: (".", "-"), IETF_PROFILE: ("_", "_")}
_EXTENSION = "proofbeat"
_BREAK_GLASS = "break-glass"
_HELD = "held"
_TIERS = {tier.label: tier for tier in Tier}


@dataclass(frozen=True, slots=True)
class Result:
    """What the authority makes of one round.

    issued_at, expires_at: Unix seconds; the end counts from the nonce's issue. verifier: who says so. mode: of the
    policy, one of MODES; only `enforce` speaks of identities that are closed when they should be. reasons: one
    sentence a finding, empty where everything affirms. break_glass: the id of the order by which there is an identity
    although this does not affirm; empty for all that is earned. held: the id of the drift (attestation/drift.py) that
    closes nothing here, for enough others are closed for it; empty for all else.
    """

    status: Tier
    vector: TrustVector
    nonce: bytes
    issued_at: int
    expires_at: int
    verifier: str
    instance: InstanceId
    spiffe_id: SpiffeId
    mode: str
    generation: int
    policy_epoch: int
    policy_digest: Digest
    reasons: tuple[str, ...] = ()
    break_glass: str = ""
    held: str = ""


def build(result: Result, signer: jws.Signer, *, profile: str = VERAISON_PROFILE) -> str:
    """The signed token."""
    return sign_payload(payload(result, profile=profile), signer)


def sign_payload(body: bytes, signer: jws.Signer) -> str:
    """The token of a payload kept from before: the very same token again."""
    return signer.sign(body, kind=KIND)


def payload(result: Result, *, profile: str = VERAISON_PROFILE) -> bytes:
    """The token's JSON, unsigned."""
    name = _names(profile)
    appraisal = {
        name("ear status"): result.status.label,
        name("ear trustworthiness vector"): {
            each.name.replace("_", "-"): getattr(result.vector, each.name) for each in fields(TrustVector)
        },
        name("ear appraisal policy id"): result.policy_digest,
        _EXTENSION: {
            "instance": result.instance.value,
            "spiffe_id": str(result.spiffe_id),
            "mode": result.mode,
            "generation": result.generation,
            "policy_epoch": result.policy_epoch,
            "reasons": [reason[:MOST_REASON_TEXT] for reason in result.reasons[:MOST_REASONS]],
            **({_BREAK_GLASS: result.break_glass} if result.break_glass else {}),
            **({_HELD: result.held} if result.held else {}),
        },
    }
    token = {
        "eat_profile": profile,
        "iat": result.issued_at,
        "exp": result.expires_at,
        "eat_nonce": base64.urlsafe_b64encode(result.nonce).rstrip(b"=").decode(),
        name("ear verifier id"): {"developer": "https://proofbeat.dev", "build": result.verifier},
        "submods": {SUBMODULE: appraisal},
    }
    return json.dumps(token, separators=(",", ":")).encode()


def parse(token: str, key: ec.EllipticCurvePublicKey, *, now: float) -> Result:
    """The result in a token that `key` signed and that has not ended at `now` (Unix seconds).

    Raises MalformedResult: signature, algorithm, profile, form, an end that has passed, or a status that is better
    than the worst claim of its vector.
    """
    if len(token) > MOST_BYTES:
        raise MalformedResult(f"{len(token)} bytes are too many", where=_WHERE)
    result = read_payload(jws.open_signed(token, key, kind=KIND))
    if now >= result.expires_at:
        raise MalformedResult(f"it ended {now - result.expires_at:.0f} s ago", where=_WHERE, mend="Attest again.")
    return result


def open_signed(document: str, key: ec.EllipticCurvePublicKey) -> bytes:
    """The JSON of a signed policy document. Raises MalformedResult for every other token, results included."""
    return jws.open_signed(document, key, kind=POLICY_KIND)


def read_payload(body: bytes) -> Result:
    """The result in a token's JSON, whose signature somebody else has checked. Raises MalformedResult."""
    try:
        token = strictjson.loads(body)
        return _read(token, _names(token["eat_profile"]))
    except MalformedResult:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInput) as error:
        raise MalformedResult(f"claims that do not parse ({error})", where=_WHERE) from error


def _read(token: dict[str, Any], name: Any) -> Result:
    appraisal = token["submods"][SUBMODULE]
    ours = appraisal[_EXTENSION]
    vector = _vector(appraisal[name("ear trustworthiness vector")])
    status = _TIERS[appraisal[name("ear status")]]
    if _rank(status) < _rank(vector.tier):
        raise MalformedResult("a status better than the worst claim of its vector", where=_WHERE)
    if ours["mode"] not in MODES or not digests.well_formed(appraisal[name("ear appraisal policy id")]):
        raise MalformedResult("an unknown mode, or a policy digest that is none", where=_WHERE)
    return Result(
        status=status,
        vector=vector,
        nonce=_unbase64(token["eat_nonce"]),
        issued_at=_whole(token["iat"]),
        expires_at=_whole(token["exp"]),
        verifier=_text(token[name("ear verifier id")]["build"]),
        instance=InstanceId(ours["instance"]),
        spiffe_id=SpiffeId.parse(ours["spiffe_id"]),
        mode=ours["mode"],
        generation=_whole(ours["generation"]),
        policy_epoch=_whole(ours["policy_epoch"]),
        policy_digest=appraisal[name("ear appraisal policy id")],
        reasons=tuple(_text(reason) for reason in ours["reasons"]),
        break_glass=_text(ours.get(_BREAK_GLASS, "")),
        held=_text(ours.get(_HELD, "")),
    )


def _rank(tier: Tier) -> int:
    """How bad: NONE, which says nothing good, stands between AFFIRMING and WARNING."""
    return {Tier.AFFIRMING: 0, Tier.NONE: 1, Tier.WARNING: 2, Tier.CONTRAINDICATED: 3}[tier]


def _names(profile: str) -> Any:
    separators = _SEPARATORS.get(profile)
    if separators is None:
        raise MalformedResult(f"the profile {profile!r} is not spoken here", where=_WHERE)
    first, rest = separators

    def name(words: str) -> str:
        head, _, tail = words.partition(" ")
        return head + first + tail.replace(" ", rest)

    return name


def _vector(claims: dict[str, Any]) -> TrustVector:
    return TrustVector(**{claim.replace("-", "_"): _whole(value) for claim, value in claims.items()})


def _whole(value: Any) -> int:
    if type(value) is not int or not -_BEYOND <= value < _BEYOND:
        raise MalformedResult(f"{str(value)[:40]!r} is not a whole number of 64 bits", where=_WHERE)
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise MalformedResult(f"a {type(value).__name__} where text belongs", where=_WHERE)
    return value


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise MalformedResult("a nonce that is not base64url", where=_WHERE) from error
