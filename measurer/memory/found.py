"""What is known of a workload's code: put together out of its processes, and what of it is new. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from attestation.memory import MOST_CODE, Code, CodeKind

_SUMMED = frozenset({CodeKind.ANONYMOUS, CodeKind.MEMFD})
_GRAVEST_FIRST = (CodeKind.PATCHED, CodeKind.PROBED, CodeKind.UNREAD, CodeKind.MEMFD, CodeKind.ANONYMOUS, CodeKind.FILE)


def together(code: Iterable[Code]) -> frozenset[Code]:
    """Of any number of processes: each thing once, of amounts the greatest, and no more than can be told."""
    amounts: dict[tuple[CodeKind, str], Code] = {}
    things = set()
    for each in code:
        if each.kind in _SUMMED:
            key = (each.kind, each.executable)
            amounts[key] = _greater(each, amounts.get(key, each))
        else:
            things.add(each)
    things.update(amounts.values())
    if len(things) <= MOST_CODE:
        return frozenset(things)
    kept = sorted(things, key=lambda each: (_GRAVEST_FIRST.index(each.kind), each))[: MOST_CODE - 1]
    return frozenset((*kept, Code(CodeKind.UNTOLD)))


def _greater(one: Code, other: Code) -> Code:
    return replace(one, amount=max(one.amount, other.amount), writable=one.writable or other.writable)


class Told:
    """What facts have told, and still is so."""

    def __init__(self) -> None:
        self._known: frozenset[Code] = frozenset()

    def news(self, code: Iterable[Code]) -> list[Code]:
        """Of one process's code what nobody was told; from now on it is."""
        new = sorted(each for each in code if not self._was_told(each))
        self._known |= frozenset(new)
        return new

    def _was_told(self, code: Code) -> bool:
        """Of an amount, that there is as much."""
        if code.kind not in _SUMMED:
            return code in self._known
        told = (each for each in self._known if (each.kind, each.executable) == (code.kind, code.executable))
        return any(each.amount >= code.amount and each.writable >= code.writable for each in told)

    def settle(self, code: Iterable[Code]) -> None:
        """This is all there is: what is gone is new when it comes back."""
        self._known = frozenset(code)
