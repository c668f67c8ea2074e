"""Takes secrets, control characters and excess out of whatever a log line is given. Pure; knows nothing of logging.

A value is a secret by the name it goes under, or by its shape wherever it stands: PEM, JWT, the 43 characters of a
join token or ticket, credentials in a header, an assignment or a URL. Bytes are never shown, only counted.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from math import isfinite
from pathlib import PurePath

from attestation.wording import shown

REDACTED = "[redacted]"
CUT = "[cut]"

MOST_TEXT = 2048
"""Characters that one text keeps."""
MOST_LINE = 32 * 1024
"""Characters of all texts of one line together, before they are cut."""
MOST_DEPTH = 6
_MOST_LOOKED_AT = 8 * 1024
"""Characters of one text that are searched at all; the rest is never shown."""

_WORDS = r"token|ticket|secret|private|passw|authorization|credential|cookie|api_?key"
_SECRET_NAME = re.compile(_WORDS, re.IGNORECASE)
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    # PEM, whole or with its end missing. Certificates too: whoever needs one asks for it.
    (re.compile(r"-----BEGIN [A-Z0-9 ]{1,40}-----.*?(?:-----END [A-Z0-9 ]{1,40}-----|\Z)", re.DOTALL), REDACTED),
    # JWS and JWT: results, projected tokens.
    (re.compile(r"\beyJ[\w-]{4,}(?:\.[\w-]*)+"), REDACTED),
    # https://user:password@host
    (re.compile(r"://[^\s/@]{1,512}@"), f"://{REDACTED}@"),
    # Authorization: Bearer ...
    (re.compile(r"\b(bearer|basic|proofbeat)[ ]+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    # password=..., 'token': '...'
    (re.compile(rf"((?:{_WORDS})\w{{0,32}}[\"']?=)[^\s,;&)\]}}]+", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(rf"((?:{_WORDS})\w{{0,32}}[\"']\s?:\s?b?)([\"'])(?:(?!\2).)*\2", re.IGNORECASE), rf"\1{REDACTED}"),
)
_RANDOM = re.compile(r"(?<![\w-])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])[A-Za-z0-9_-]{43}(?![\w-])")
"""32 random bytes in base64: join tokens, tickets. Digests are printed in hex, which has no capitals."""
_PLAIN = re.compile(r"(?!.*eyJ)[A-Za-z0-9_./:-]{0,42}")
"""Too short for a token, and without what every other shape has: most of what is logged."""
_TOKEN_CHARACTERS = string.ascii_letters + string.digits + "_.~+/=-"

Shown = str | int | float | bool | None | list["Shown"] | dict[str, "Shown"]


def redacted(values: Mapping[str, object]) -> dict[str, Shown]:
    """The values of one line by name, made fit for a log: plain, bounded, escaped, and without secrets."""
    line = _Line()
    return {line.text(name): line.named(name, value, 0) for name, value in values.items()}


def safe(text: str) -> str:
    """One text without secrets or control characters, cut at MOST_TEXT characters."""
    if _PLAIN.fullmatch(text):
        return text
    cut = len(text) > _MOST_LOOKED_AT
    if cut:
        # What a cut leaves of a token has no shape any more: it goes as well.
        text = text[:_MOST_LOOKED_AT].rstrip(_TOKEN_CHARACTERS)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    text = shown(_RANDOM.sub(REDACTED, text), MOST_TEXT + 1)
    return text if len(text) <= MOST_TEXT and not cut else text[: MOST_TEXT - len(CUT)] + CUT


def command_line(arguments: Sequence[str]) -> list[str]:
    """A program's arguments as `safe` has them, and without what stands alone after a name like `--password`."""
    shown, follows = [], False
    for each in arguments:
        shown.append(REDACTED if follows else safe(each))
        follows = each.startswith("-") and "=" not in each and _says_secret(each[:MOST_TEXT])
    return shown


@lru_cache(maxsize=256)
def _says_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


class _Line:
    """What one line may still hold."""

    def __init__(self) -> None:
        self._left = MOST_LINE

    def named(self, name: str, value: object, depth: int) -> Shown:
        return REDACTED if _says_secret(name) else self.value(value, depth)

    def text(self, text: str) -> str:
        self._left -= min(len(text), _MOST_LOOKED_AT)
        return CUT if self._left < 0 else safe(text)

    def value(self, value: object, depth: int) -> Shown:
        self._left -= 1
        if self._left < 0 or depth > MOST_DEPTH:
            return CUT
        match value:
            case None | bool():
                return value
            case float():
                # JSON has no word for the others.
                return value if isfinite(value) else str(value)
            case Enum():
                return self.value(value.value, depth + 1)
            case int():
                # json gives up on integers of more than 4300 digits, and so would every reader.
                return value if value.bit_length() <= 64 else CUT
            case str():
                return self.text(value)
            case bytes() | bytearray() | memoryview():
                return f"[{len(value)} bytes]"
            case Mapping():
                return self._mapping(((str(name), each) for name, each in value.items()), depth)
            case list() | tuple() | Set():
                return self._sequence(value, depth)
            case BaseException():
                return self.text(f"{type(value).__name__}: {value}")
            case PurePath():
                return self.text(str(value))
            case _ if is_dataclass(value) and not isinstance(value, type):
                return self._mapping(((each.name, getattr(value, each.name)) for each in fields(value)), depth)
            case _:
                return self.text(str(value))

    def _mapping(self, pairs: Iterable[tuple[str, object]], depth: int) -> dict[str, Shown]:
        found: dict[str, Shown] = {}
        for name, each in pairs:
            if self._left <= 0:
                found[CUT] = CUT
                break
            found[self.text(name)] = self.named(name, each, depth + 1)
        return found

    def _sequence(self, values: Iterable[object], depth: int) -> list[Shown]:
        found: list[Shown] = []
        for each in values:
            if self._left <= 0:
                found.append(CUT)
                break
            found.append(self.value(each, depth + 1))
        return found
