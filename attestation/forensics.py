"""A forensic bundle's manifest: what the bundle is about, what belongs to it, and whose word it is."""

from __future__ import annotations

import json
from dataclasses import dataclass

from attestation import strictjson
from attestation.digests import Digest
from attestation.instance import InstanceId
from attestation.plain import build, plain

KIND = "proofbeat-forensics+json"
"""The `typ` of its signature (attestation/jws.py)."""
MANIFEST, SIGNATURE = "manifest.json", "manifest.jws"
ABOUT, WORKLOAD = "about.json", "workload.jsonl"


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the bundle. bytes: its size."""

    name: str
    bytes: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Manifest:
    """made_ms: Unix milliseconds. kind, violation_class, subject: of the cause that it was taken for.

    complete: nothing was left out for its size or the time it took. contained: what was done to the workload by then.
    key: the attester's public key (SPKI DER, hex), by which the manifest is signed; the authority knows it by the
    evidence that it signs.
    """

    instance: InstanceId
    spiffe_id: str
    made_ms: int
    kind: str
    violation_class: str
    subject: str
    policy_epoch: int
    contained: str
    complete: bool
    key: str
    parts: tuple[Part, ...]
    refusal: str = ""


def packed(manifest: Manifest) -> bytes:
    """What is written, and signed."""
    return json.dumps(plain(manifest), sort_keys=True, indent=1).encode()


def unpacked(content: bytes, where: str) -> Manifest:
    """Raises InvalidInput."""
    return build(Manifest, strictjson.loads(content), where)
