"""Durations and points in time as people write them: `250ms`, `10s`, `5m`; `2026-12-31T00:00:00Z`. Held as seconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from attestation.errors import InvalidInput
from attestation.wording import shown

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_MOST = 36_525 * 86_400.0
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


def seconds(text: str) -> float:
    """The duration in seconds.

    Raises InvalidInput for anything but a number directly followed by ms, s, m, h or d, for what is finer than a
    millisecond (`duration` would not write it), and for a century or more.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f"{text!r} is not a duration", mend="Write a number and a unit: 250ms, 10s, 5m, 1h.")
    thousandths = float(match[1]) * _UNITS[match[2]] * 1000
    if thousandths > _MOST * 1000 or abs(thousandths - round(thousandths)) > 1e-9 * thousandths:
        raise InvalidInput(f"{shown(text, 40)!r} is no whole number of milliseconds within a century")
    return round(thousandths) / 1000


def duration(value: float) -> str:
    """`seconds` reversed, in the largest unit that keeps the number whole (0.25 -> `250ms`)."""
    for unit in ("d", "h", "m", "s"):
        count = value / _UNITS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{round(value * 1000)}ms"


def instant(text: str) -> int:
    """Unix seconds of a point in time in UTC (RFC 3339). Raises InvalidInput for any other spelling."""
    mend = "Write it in UTC, to the second: 2026-12-31T00:00:00Z."
    if _INSTANT.fullmatch(text) is None:
        raise InvalidInput(f"{shown(text, 40)!r} is no point in time", mend=mend)
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError as error:
        raise InvalidInput(f"{text!r} is on no calendar", mend=mend) from error


def instant_text(at: int) -> str:
    """`instant` reversed. at: Unix seconds of a year from 1 to 9999."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
