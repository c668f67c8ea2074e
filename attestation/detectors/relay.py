"""What a relay and a sidecar say to each other beside a detector's lines: lines of JSON of one key of our own.

A plain client (`nc -U`) says none of it, and need not read any.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from attestation import strictjson
from attestation.detectors.alerts import Detector
from attestation.errors import InvalidInput
from attestation.plain import build, plain

_KEY = "proofbeat"
_BEGINS = b'{"proofbeat":'


@dataclass(frozen=True, slots=True)
class Relays:
    """To the sidecar: this detector's lines come here, for as long as the connection stands."""

    detector: Detector


@dataclass(frozen=True, slots=True)
class Dropped:
    """To the sidecar: so many lines were given up before they could be told."""

    lines: int


@dataclass(frozen=True, slots=True)
class Taken:
    """To the relay: so many lines have been read on this connection altogether, those that were turned among them."""

    lines: int


@dataclass(frozen=True, slots=True)
class Turned:
    """To the relay: this line was no alert that is understood; line 0: the connection itself is not let in."""

    line: int
    why: str


Word = Relays | Dropped | Taken | Turned
_SHAPES: dict[str, type[Word]] = {"relays": Relays, "dropped": Dropped, "taken": Taken, "turned": Turned}
_NAMES = {shape: name for name, shape in _SHAPES.items()}


def encode(word: Word) -> bytes:
    """With its line end."""
    return json.dumps({_KEY: {_NAMES[type(word)]: plain(word)}}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Word | None:
    """None for what is a detector's. Raises InvalidInput for a word of ours that is none."""
    if not line.startswith(_BEGINS):
        return None
    said = strictjson.loads(line)
    words = said[_KEY] if isinstance(said, dict) and said.keys() == {_KEY} else None
    if not isinstance(words, dict) or len(words) != 1:
        raise InvalidInput("no word between a relay and a sidecar", where="detector")
    ((name, fields),) = words.items()
    shape = _SHAPES.get(name)
    if shape is None:
        raise InvalidInput("no word between a relay and a sidecar", where="detector")
    return build(shape, fields, where=name)
