"""`bench appraise`: ten thousand files and twenty rules, judged.

Known: claims that were judged before, so that the verdict is at hand. Uncached: one file is other than it was the last
time that nothing was found. First: nothing of the workload was ever judged under these policies. Open Policy Agent
decides the same in Rego, from JSON, and takes turns with us; that both come to the same is checked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from attestation.errors import Unavailable
from authority.rules import Ruling
from authority.verifier.cache import Appraisals, appraisal_key
from policies.appraise.appraise import appraise
from policies.appraise.files import Files
from policies.appraise.reasons import Verdict
from policies.appraise.rules import prepare
from proofbeat.bench import peers
from proofbeat.bench.appraise import workload
from proofbeat.bench.appraise.workload import Claimed
from proofbeat.bench.figures import Budget, Distribution, Figure, Report
from proofbeat.ephemeral import folder
from proofbeat.ephemeral.children import Child, Children

PEER = "opa"
WITHIN_SECONDS = 60.0
MOST_CACHED_MS, MOST_UNCACHED_MS = 0.5, 5.0
TURNS, EACH = 20, 10
"""Turns, and samples a turn of what is quick; of the rest one."""

Taken = dict[str, list[float]]
OURS = ("cached", "uncached", "uncached_cpu", "first", "first_cpu")


async def run(*, quick: bool) -> Report:
    ours = Ours()
    taken: Taken = {name: [] for name in OURS}
    async with _peer(ours.ruling) as peer:
        for _ in range(4 if quick else TURNS):
            ours.turn(taken)
            if peer is not None:
                one = ours.another()
                await peer.decides(one, ours.ruling, ours.judged(one), taken)
    return report(taken)


def report(taken: Mapping[str, Sequence[float]]) -> Report:
    """Pure."""
    figures: dict[str, Figure] = {name: Distribution.of(taken[name]) for name in OURS}
    theirs: dict[str, Figure | str] = {name: Distribution.of(taken[name]) for name in taken if name not in OURS}
    what = f"{workload.FILES:,} files, {len(workload.RULES)} rules"
    budgets = (
        Budget(f"{what}: cached, p50 in ms", MOST_CACHED_MS, Distribution.of(taken["cached"]).p50),
        Budget(f"{what}: uncached, p50 in ms", MOST_UNCACHED_MS, Distribution.of(taken["uncached"]).p50),
    )
    return Report("appraise", figures, budgets, peers={PEER: theirs or peers.MISSING})


class Ours:
    """The authority's way to a verdict, without what is around it: signatures, the store, sessions."""

    def __init__(self) -> None:
        self._there = workload.entries()
        self._clean = Files(workload.claimed(self._there).body)
        self.ruling = workload.ruling(self._there)
        prepare(self.ruling.policy)
        self._appraisals, self._made = Appraisals(), 0

    def another(self) -> Claimed:
        """Claims that nobody has seen: another file deviates each time."""
        self._made += 1
        return workload.claimed(workload.deviating(self._there, self._made * 37 % workload.FILES))

    def turn(self, taken: Taken) -> None:
        for _ in range(EACH):
            one = self.another()
            _take(partial(self.judged, one), taken["uncached"], taken["uncached_cpu"])
            _take(partial(self.judged, one), taken["cached"], [])
        _take(partial(self.judged, self.another(), compared=False), taken["first"], taken["first_cpu"])

    def judged(self, one: Claimed, *, compared: bool = True) -> Verdict:
        key = appraisal_key(one.claims, self.ruling)
        verdict = self._appraisals.get(key)
        if verdict is None:
            clean = self._clean if compared else None
            verdict = appraise(one.claims, one.bodies, self.ruling.governing, clean=clean)
            self._appraisals.put(key, verdict)
        return verdict


def _take(act: Callable[[], object], wall: list[float], cpu: list[float]) -> None:
    """Milliseconds that passed, and of CPU: what a busy machine adds is in the first alone."""
    began, spent = time.perf_counter(), time.process_time()
    act()
    wall.append((time.perf_counter() - began) * 1000)
    cpu.append((time.process_time() - spent) * 1000)


class Peer:
    """Open Policy Agent in a process of its own. here: where its inputs are written."""

    def __init__(self, child: Child, here: Path) -> None:
        self._child, self._here = child, here

    async def decides(self, one: Claimed, ruled: Ruling, verdict: Verdict, taken: Taken) -> None:
        """Raises Unavailable where it does not answer, or decides otherwise than we do."""
        file = self._here / "input.json"
        file.write_text(json.dumps(workload.given(one, ruled)))
        stdin = self._child.process.stdin
        if stdin is None:
            raise Unavailable("it has no input", where=self._child.name)
        stdin.write(f"{file}\n".encode())
        told: dict[str, Any] = json.loads(await self.hear())
        found = {(kind, subject) for kind, subject in told["findings"]}
        if found != _found(verdict):
            raise Unavailable(f"{PEER} finds {sorted(found)}, and we {sorted(_found(verdict))}", where="bench appraise")
        taken.setdefault("read_and_decided", []).append(told["read_ms"] + told["decide_ms"])
        taken.setdefault("decided", []).append(told["decide_ms"])

    async def hear(self) -> str:
        """Its next line."""
        return await self._child.line(WITHIN_SECONDS)


def _found(verdict: Verdict) -> set[tuple[str, str]]:
    """Kind and subject, as the peer's policy names them."""
    return {(str(each.kind), each.subject.rpartition(" ")[2]) for each in verdict.reasons}


@asynccontextmanager
async def _peer(ruled: Ruling) -> AsyncIterator[Peer | None]:
    """None where it is not built."""
    built = peers.binary(PEER)
    if built is None:
        yield None
        return
    with folder.passing("bench") as here:
        (here / "data.json").write_text(json.dumps(workload.data(ruled)))
        async with asyncio.TaskGroup() as tasks:
            children = Children(here, tasks)
            try:
                pipe = asyncio.subprocess.PIPE
                peer = Peer(
                    await children.start(PEER, [str(built), str(here / "data.json")], stdin=pipe, stdout=pipe), here
                )
                await peer.hear()
                yield peer
            finally:
                await children.end()
