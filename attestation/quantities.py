"""Durations as people write them: `250ms`, `10s`, `5m`, `1h`. Held as seconds."""

from __future__ import annotations

import re

from attestation.errors import InvalidInput

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def seconds(text: str) -> float:
    """The duration in seconds.

    Raises InvalidInput for anything but a number directly followed by ms, s, m, h or d.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f"{text!r} is not a duration", mend="Write a number and a unit: 250ms, 10s, 5m, 1h.")
    return float(match[1]) * _UNITS[match[2]]


def duration(value: float) -> str:
    """`seconds` reversed, in the largest unit that keeps the number whole (0.25 -> `250ms`)."""
    for unit in ("d", "h", "m", "s"):
        count = value / _UNITS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{round(value * 1000)}ms"
