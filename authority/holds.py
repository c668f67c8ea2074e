"""How many of a registration's instances one drift may close, and who is held back: pure counting.

A drift closes its first instance whatever the share, so that none goes unnoticed, and an instance with several drifts
closes as soon as one of them has room for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """That an instance has a drift. drift: its id. name: in words. closed: it is closed, or was told to close.

    since_ms: when that was recorded.
    """

    instance: str
    drift: str
    name: str
    closed: bool
    since_ms: int


@dataclass(frozen=True, slots=True)
class Summed:
    """One drift of one registration. closed, held: how many instances are. live: how many there are."""

    drift: str
    name: str
    closed: int
    held: int
    live: int


def most_closed(share: int, live: int) -> int:
    """How many instances one drift may close. share: percent. live: how many instances there are."""
    return max(1, share * live // 100)


def held_back(closed: Mapping[str, int], most: int) -> bool:
    """Whether an instance stays open. closed: each of its drifts -> how many *other* instances are closed for it."""
    return bool(closed) and all(each >= most for each in closed.values())


def due(entries: Iterable[Entry], most: int) -> tuple[str, ...]:
    """Those held back for whom there is room by now, the longest held first; each takes the room that it needs."""
    ordered = sorted(entries, key=lambda each: (each.since_ms, each.instance, each.drift))
    closed = Counter(each.drift for each in ordered if each.closed)
    shut = {each.instance for each in ordered if each.closed}
    waiting: dict[str, list[str]] = {}
    for each in ordered:
        if each.instance not in shut:
            waiting.setdefault(each.instance, []).append(each.drift)
    told = []
    for instance, drifts in waiting.items():
        if not held_back({drift: closed[drift] for drift in drifts}, most):
            told.append(instance)
            closed.update(drifts)
    return tuple(told)


def summed(entries: Collection[Entry], live: int) -> tuple[Summed, ...]:
    """Each drift of one registration that holds somebody back or has closed somebody, by its name."""
    names = {each.drift: each.name for each in entries}
    closed = Counter(each.drift for each in entries if each.closed)
    held = Counter(each.drift for each in entries if not each.closed)
    found = (Summed(drift, name, closed[drift], held[drift], live) for drift, name in names.items())
    return tuple(sorted(found, key=lambda each: (each.name, each.drift)))
