"""The frozen conversation of wire 1.0: what peers that nobody updates go on saying, byte by byte."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestation import cbor, keys

_FILE = Path(__file__).parent / "fixtures" / "wire-1.0.json"


@dataclass(frozen=True)
class Recorded:
    """kind: of the message; `COSE_Sign1(...)` for a sealed one, `problem+json` for an HTTP problem."""

    kind: str
    number: int
    purpose: str
    content: bytes


_DOCUMENT: dict[str, Any] = json.loads(_FILE.read_text())
RECORDED = tuple(
    Recorded(each["is"], each.get("number", 0), each.get("purpose", ""), base64.b64decode(each["bytes"]))
    for each in _DOCUMENT["frames"]
)
FRAMES = tuple(each for each in RECORDED if each.kind.isidentifier())
RESULT_KEY = keys.from_der(base64.b64decode(_DOCUMENT["result_key"]))
EVIDENCE_KEY = keys.from_der(base64.b64decode(_DOCUMENT["evidence_key"]))


def recorded(kind: str) -> Recorded:
    return next(each for each in RECORDED if each.kind == kind)


def shape_of(value: Any) -> Any:
    """The keys of every map in a plain value, however deep: what a strict peer of that time knows."""
    if isinstance(value, dict):
        return {key: shape_of(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape_of(value[0])] if value else []
    return None


def told(kind: str) -> dict[str, Any]:
    """A recorded frame's fields, as plain values: a template for the same message again."""
    fields: dict[str, Any] = cbor.loads(recorded(kind).content, most_bytes=1 << 20)["in"]
    return fields
