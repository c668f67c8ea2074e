"""A file policy and reference values for a program that nobody has described, from watching it for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from policies.model.metadata import Metadata
from policies.model.references import FileReference, ReferenceSpec, ReferenceValues
from proofbeat.study import studied


@dataclass(frozen=True, slots=True)
class Learned:
    """volatile: paths that still changed when the program had settled; their content is nobody's to judge.

    preload: what was named to come before a program's own libraries, as ProcessRules.preload.
    """

    references: ReferenceValues
    volatile: tuple[str, ...]
    preload: tuple[str, ...] = ()


async def learn(name: str, pid: int, include: tuple[str, ...], volatile: tuple[str, ...], seconds: float) -> Learned:
    """Looks at the program half-way and at the end, and at what it executes all the time. Raises Unavailable.

    volatile: patterns of what is not looked at, as the policy will have them.
    """
    async with studied(pid, include, volatile) as study:
        await asyncio.sleep(seconds / 2)
        earlier = await study.measure()
        await asyncio.sleep(seconds / 2)
        found = learned(name, earlier, await study.measure(), study.executables)
        return replace(found, preload=tuple(sorted(study.preload)))


def learned(
    name: str, earlier: ReferenceSpec, later: ReferenceSpec, executed: Mapping[str, set[str]] | None = None
) -> Learned:
    """What was the same twice is what may be; what was not is volatile.

    A file that was written once, while the program started, is kept as it is: byte code is code. Nothing that was
    seen to run is left out, unless it had other content each time.
    """
    changed = {path for path in earlier.files.keys() | later.files.keys() if _moved(path, earlier, later)}
    files: dict[str, FileReference] = {path: found for path, found in later.files.items() if path not in changed}
    executables: dict[str, tuple[str, ...]] = dict(later.executables)
    for path, digests in (*earlier.executables.items(), *(executed or {}).items()):
        executables[path] = tuple(sorted({*executables.get(path, ()), *digests}))
    references = ReferenceValues(
        metadata=Metadata(name=name), spec=ReferenceSpec(files=files, executables=dict(sorted(executables.items())))
    )
    return Learned(references, tuple(sorted(changed)))


def _moved(path: str, earlier: ReferenceSpec, later: ReferenceSpec) -> bool:
    before, after = earlier.files.get(path), later.files.get(path)
    return before != after
