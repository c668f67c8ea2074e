"""What a measurer and its gate say to each other: one JSON datagram each, with descriptors beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from attestation import strictjson
from attestation.digests import Digest
from attestation.errors import InvalidInput
from attestation.plain import build, plain

MOST_BYTES = 64 * 1024
MOST_MARKS = 64
"""Descriptors beside one message; the kernel takes 253 (SCM_MAX_FD)."""


# Measurer to gate.


@dataclass(frozen=True, slots=True)
class Allow:
    """With a sealed file of SHA-256 digests, 32 bytes each: what they are of may be executed, and nothing else."""


@dataclass(frozen=True, slots=True)
class Mark:
    """With an open path of each mount: be asked before what is executed from there. whole: from anywhere on its file
    system."""

    points: tuple[str, ...]
    whole: tuple[bool, ...]


# Gate to measurer.


@dataclass(frozen=True, slots=True)
class Marked:
    """Answer to Mark. refused: those of its points that the kernel takes no mark for."""

    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """An execution was refused. at: CLOCK_BOOTTIME seconds of the question. link: what the kernel calls the file.
    digest: empty where it could not be read. pid, parent, inside: as attestation.facts has them.
    """

    at: float
    link: str
    digest: Digest
    deleted: bool
    pid: int
    executable: str
    parent: int
    inside: int


@dataclass(frozen=True, slots=True)
class Untold:
    """So many were refused of which nothing can be told. why: for whoever reads."""

    count: int
    why: str


@dataclass(frozen=True, slots=True)
class Unheld:
    """A file can be written to between the look at it and its execution: the kernel gives no lease on it."""

    why: str


Word = Allow | Mark | Marked | Refused | Untold | Unheld

_SHAPES: dict[str, type[Any]] = {shape.__name__: shape for shape in Word.__args__}


def encode(word: Word) -> bytes:
    return json.dumps({"is": type(word).__name__, **plain(word)}, separators=(",", ":")).encode()


def decode(datagram: bytes) -> Word:
    """Raises InvalidInput."""
    try:
        fields = strictjson.loads(datagram)
        shape = _SHAPES[fields.pop("is")]
    except (InvalidInput, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput("a datagram that is no message", where="gate") from error
    word: Word = build(shape, fields, where=shape.__name__)
    return word
