"""`bench storm`: 20,000 files written and 50,000 programs run, as fast as it goes: what was told, and what was not?

*silent* is what was neither told as a fact nor said to be lost. The same storms blow without a measurer in the same
run: what is left of the workload's own pace is what measuring costs it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from attestation.channel import Beat, Fault, Measure, Message, Observed, Pinned, Scope
from attestation.errors import Unavailable
from attestation.facts import CollectorFact, CollectorState, ExecutionFact, FileChange, FileFact
from attestation.layers import Layer, Method
from proofbeat.bench.figures import Budget, Figure, Report, Value
from proofbeat.bench.storm import workload
from proofbeat.ephemeral import folder
from proofbeat.ephemeral.clock import now
from sidecar.measurement import Measurer, spawn

COUNTS = {"files": 20_000, "executions": 50_000}
QUICK_COUNTS = {"files": 4_000, "executions": 2_000}
TURNS = 4
"""Storms are blown in so many parts, with and without a measurer in turn: neither has the quieter half of the run."""
DEADMAN, WITHIN_SECONDS = 5.0, 120.0
LEAST_PACE = 0.5
"""Share of its own pace that a workload keeps in a storm."""
_LAYERS = {"files": Layer.FILES, "executions": Layer.PROCESSES}


@dataclass(frozen=True, slots=True)
class Storm:
    """One that was measured. told: facts of its acts. losses: how often a collector said that it lost events. silent:
    acts that nobody would ever know of. answered: seconds, the longest time between a heartbeat and its answer.
    """

    acts: int
    told: int
    losses: int
    silent: int
    seconds: float
    answered: float


def whole(parts: Sequence[Storm]) -> Storm:
    """All of them together. Pure."""
    return Storm(
        acts=sum(each.acts for each in parts),
        told=sum(each.told for each in parts),
        losses=sum(each.losses for each in parts),
        silent=sum(each.silent for each in parts),
        seconds=sum(each.seconds for each in parts),
        answered=max(each.answered for each in parts),
    )


async def run(*, quick: bool) -> Report:
    counts = QUICK_COUNTS if quick else COUNTS
    figures: dict[str, Figure] = {}
    budgets = []
    for kind, count in counts.items():
        alone, parts = 0.0, []
        for _ in range(TURNS):
            with folder.passing("storm") as here:
                alone += await unmeasured(here, kind, count // TURNS)
            with folder.passing("storm") as here:
                parts.append(await measured(here, kind, count // TURNS))
        storm = whole(parts)
        pace = alone / storm.seconds
        figures |= {
            f"{kind}_acts": Value("in the storm", storm.acts),
            f"{kind}_told": Value("facts", storm.told),
            f"{kind}_losses": Value("told", storm.losses),
            f"{kind}_a_second": Value("1/s", round(count / storm.seconds)),
            f"{kind}_a_second_unmeasured": Value("1/s", round(count / alone)),
            f"{kind}_pace_kept": Value("%", round(pace * 100, 1)),
            f"{kind}_longest_answer": Value("ms", round(storm.answered * 1000, 1)),
        }
        budgets += [
            Budget(f"{kind}: acts lost in silence", 0.0, float(storm.silent)),
            Budget(f"{kind}: share of its own pace that the workload keeps", LEAST_PACE, pace, at_least=True),
            Budget(
                f"{kind}: seconds until a heartbeat is answered, at most the dead-man time", DEADMAN, storm.answered
            ),
        ]
    return Report("storm", figures, tuple(budgets))


async def unmeasured(here: Path, kind: str, count: int) -> float:
    """Seconds that a storm takes by itself."""
    async with _workload(here) as stormy:
        return await _blow(stormy, kind, count)


async def measured(here: Path, kind: str, count: int) -> Storm:
    """One under a measurer that is asked for a measurement once it is over. Raises Unavailable."""
    async with _workload(here) as stormy:
        hearing = Hearing(here)
        measurer = Measurer(hearing.heard, hearing.fail)
        measurer.start(asyncio.get_running_loop(), spawn())
        try:
            async with asyncio.TaskGroup() as tasks:
                measurer.send(Scope(stormy.pid, (str(here / "app"),), deadman=DEADMAN))
                await hearing.observed_since(0.0)
                beating = tasks.create_task(hearing.beat(measurer), name="beats")
                seconds = await _blow(stormy, kind, count)
                over = now()
                measurer.send(Measure(tuple(_LAYERS.values()), over))
                await hearing.observed_since(over)
                beating.cancel()
        finally:
            measurer.stop()
        layer = _LAYERS[kind]
        lost = [fact for fact in hearing.losses if fact.collector.startswith(layer)]
        remeasured = all(hearing.full_began.get(layer, 0.0) >= fact.at for fact in lost)
        told = len(hearing.files) if kind == "files" else hearing.executions
        silent = 0 if lost and remeasured else count - told
        return Storm(count, told, len(lost), silent, seconds, hearing.longest)


@dataclass
class Hearing:
    """What a measurer says of a storm. files: paths told as added. longest: seconds until a beat was answered."""

    here: Path
    files: set[str] = field(default_factory=set)
    executions: int = 0
    losses: list[CollectorFact] = field(default_factory=list)
    began: dict[Layer, float] = field(default_factory=dict)
    full_began: dict[Layer, float] = field(default_factory=dict)
    longest: float = 0.0
    _sent: dict[int, float] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _failed: str = ""

    def heard(self, message: Message, body: bytes | None) -> None:
        match message:
            case FileFact(path=path, change=FileChange.ADDED):
                self.files.add(path)
            case ExecutionFact(path=path) if path == str(self.here / "program"):
                self.executions += 1
            case CollectorFact(state=CollectorState.OVERFLOWED):
                self.losses.append(message)
            case Observed(observation):
                self.began[observation.layer] = observation.began
                if observation.method is Method.FULL:
                    self.full_began[observation.layer] = observation.began
                self._news.set()
            case Beat(number):
                self.longest = max(self.longest, time.monotonic() - self._sent.pop(number))
            case Fault(what):
                self.fail(what)
            case Pinned() | _:
                pass

    def fail(self, why: str) -> None:
        self._failed = why
        self._news.set()

    async def observed_since(self, moment: float) -> None:
        """Until both layers were measured from then on. Raises Unavailable."""
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                while not all(self.began.get(layer, -1.0) >= moment for layer in _LAYERS.values()):
                    self._news.clear()
                    await self._news.wait()
                    if self._failed:
                        raise Unavailable(self._failed, where="bench storm")
        except TimeoutError as error:
            raise Unavailable("no measurement after the storm", where="bench storm") from error

    async def beat(self, measurer: Measurer) -> None:
        """As a sidecar does, until cancelled."""
        number = 0
        while True:
            number += 1
            self._sent[number] = time.monotonic()
            measurer.send(Beat(number))
            await asyncio.sleep(DEADMAN / 10)


@asynccontextmanager
async def _workload(here: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    app = here / "app"
    app.mkdir()
    shutil.copy("/bin/true", here / "program")
    script = shutil.copy(workload.__file__, here / "workload.py")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-I", script, str(app), stdin=pipe, stdout=pipe)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def _blow(stormy: asyncio.subprocess.Process, kind: str, count: int) -> float:
    """Seconds that the workload itself took."""
    if stormy.stdin is None or stormy.stdout is None:
        raise Unavailable("the workload has no pipes", where="bench storm")
    stormy.stdin.write(f"{kind} {count}\n".encode())
    return float(json.loads(await stormy.stdout.readline()))
