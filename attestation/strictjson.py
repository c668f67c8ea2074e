"""Strict JSON: what Python's reader lets through beyond RFC 8259, or answers with an error of its own, is refused.

No NaN and no infinities, however they are written; no key given twice; no nesting that ends the interpreter's stack.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from attestation.errors import InvalidInput

_WHERE = "JSON"


def loads(text: bytes | str) -> Any:
    """The value. Raises InvalidInput for anything that is not one JSON text under the rules above."""
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidInput("text that is not JSON", where=_WHERE) from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse(text)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse, object_pairs_hook=_unique)
