"""Several runs put together: the same in whatever order, however often, and however they were put together before.

What was called, executed or mapped in any of them may be. A file that is not the same in all that measured it is
volatile. Of code that is of no file the most counts. Of two origins of one thing the earlier one is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attestation.patterns import matches
from policies.author.learning.learned import Amount, Contents, Learned, Origin, Origins, Run
from policies.model.references import FileReference

BETWEEN = Origin(run="", at=0.0)
"""Of what no run saw changing, and what is not the same in two of them."""


def merged(found: Sequence[Learned]) -> Learned:
    """found: one at least."""
    exempt = _every(each.exempt for each in found)
    alike, differing = _files(found)
    volatile = _origins([*(each.volatile for each in found), dict.fromkeys(differing, BETWEEN)])
    return Learned(
        runs=_runs(found),
        include=_every(each.include for each in found),
        exempt=exempt,
        files={path: each for path, each in alike.items() if path not in volatile and not matches(path, exempt)},
        volatile={path: origin for path, origin in volatile.items() if not matches(path, exempt)},
        executables=_contents(each.executables for each in found),
        begun=_contents(each.begun for each in found),
        mapped=_contents(each.mapped for each in found),
        preload=_origins(each.preload for each in found),
        code=_amounts(each.code for each in found),
        calls=_contents(each.calls for each in found),
    )


def _runs(found: Iterable[Learned]) -> tuple[Run, ...]:
    every = sorted((run for each in found for run in each.runs), key=lambda run: (run.id, run.model_dump_json()))
    return tuple({run.id: run for run in reversed(every)}[key] for key in sorted({run.id for run in every}))


def _files(found: Sequence[Learned]) -> tuple[dict[str, FileReference], set[str]]:
    """Those that are the same wherever they were looked at, and the paths of the others."""
    alike: dict[str, FileReference] = {}
    differing: set[str] = set()
    for path in sorted({path for each in found for path in each.files}):
        states = {each.files.get(path) for each in found if _looked_at(path, each)}
        one = states.pop()
        if states or one is None:
            differing.add(path)
        else:
            alike[path] = one
    return alike, differing


def _looked_at(path: str, run: Learned) -> bool:
    """Does it say something that the file is not there?"""
    below = any(path == root or path.startswith(f"{root.rstrip('/')}/") for root in run.include)
    return path in run.files or (below and path not in run.volatile and not matches(path, run.exempt))


def _every(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(sorted({each for some in lists for each in some}))


def _contents(tables: Iterable[Mapping[str, Origins]]) -> Contents:
    every: dict[str, list[Origins]] = {}
    for table in tables:
        for key, known in table.items():
            every.setdefault(key, []).append(known)
    return {key: _origins(known) for key, known in sorted(every.items())}


def _origins(tables: Iterable[Origins]) -> Origins:
    earliest: Origins = {}
    for table in tables:
        for key, origin in table.items():
            if key not in earliest or origin.rank < earliest[key].rank:
                earliest[key] = origin
    return dict(sorted(earliest.items()))


def _amounts(tables: Iterable[Mapping[str, Amount]]) -> dict[str, Amount]:
    most: dict[str, Amount] = {}
    for table in tables:
        for executable, amount in table.items():
            known = most.get(executable)
            most[executable] = amount if known is None else _greater(known, amount)
    return dict(sorted(most.items()))


def _greater(one: Amount, other: Amount) -> Amount:
    first = min(one, other, key=lambda each: (-each.most, each.origin.rank))
    return first.model_copy(
        update={"writable": one.writable or other.writable, "memfd": one.memfd or other.memfd},
    )
