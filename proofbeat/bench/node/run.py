"""1, 10 and 30 workloads under one measurer, and under one each: what it costs, and when each hears of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from proofbeat.bench import bystanders
from proofbeat.bench.costs import Cost, Reading, pss
from proofbeat.bench.figures import Budget, Distribution, Figure, Report, Value
from proofbeat.bench.node.crowd import Listener, crowd
from proofbeat.ephemeral import folder

ONE, MANY = 1, 30
STARTS_A_SECOND = 100.0
"""Programs that start elsewhere on the host."""
PEER = "a measurer each"


@dataclass(frozen=True, slots=True)
class Stretch:
    """One number of workloads. Times in ms, memory in MB."""

    quiet: Cost
    busy: Cost
    pss: float
    writes: list[float]
    starts: list[float]
    bystanders: list[float]

    def figures(self, prefix: str) -> dict[str, Figure]:
        return {
            f"{prefix}_quiet_cpu": Value("% of a core", round(self.quiet.cpu, 2)),
            f"{prefix}_quiet_wakes": Value("a second", round(self.quiet.wakes, 1)),
            f"{prefix}_busy_cpu": Value("% of a core", round(self.busy.cpu, 2)),
            f"{prefix}_pss": Value("MB", round(self.pss, 1)),
            f"{prefix}_write_to_fact": Distribution.of(self.writes),
            f"{prefix}_start_to_fact": Distribution.of(self.starts),
            f"{prefix}_cpu_of_others_programs": Distribution.of(self.bystanders),
        }


async def run(*, quick: bool) -> Report:
    counts = (ONE, MANY) if quick else (ONE, 10, MANY)
    seconds, samples = (2.0, 60) if quick else (15.0, 300)
    unmeasured = await asyncio.to_thread(bystanders.timed, samples // 4)
    shared = {count: await _stretch(count, seconds, samples, shared=True) for count in counts}
    alone = {count: await _stretch(count, seconds, samples, shared=False) for count in counts}
    figures: dict[str, Figure] = {"unmeasured_cpu_of_others_programs": Distribution.of(unmeasured)}
    for count, stretch in shared.items():
        figures |= stretch.figures(f"{count}_workloads")
    peer = {name: value for count, each in alone.items() for name, value in each.figures(f"{count}_workloads").items()}
    one, many = shared[ONE], shared[MANY]
    return Report("node", figures, _budgets(one, many), {PEER: peer})


def _budgets(one: Stretch, many: Stretch) -> tuple[Budget, ...]:
    return (
        Budget(
            f"CPU of a program elsewhere beside {MANY} workloads, as a multiple of beside one, p50",
            1.1,
            _multiple(many.bystanders, one.bystanders),
        ),
        Budget(
            f"CPU for {STARTS_A_SECOND:g} programs elsewhere, {MANY} workloads, more than for one, in % of a core",
            0.5,
            round((many.busy.cpu - many.quiet.cpu) - (one.busy.cpu - one.quiet.cpu), 2),
        ),
        Budget(f"memory of each of {MANY} workloads beyond the first, in MB", 2.0, round(_each(one, many), 2)),
        Budget(
            f"write to fact with {MANY} workloads, as a multiple of with one, p50",
            1.5,
            _multiple(many.writes, one.writes),
        ),
    )


def _multiple(of: list[float], base: list[float]) -> float:
    return round(Distribution.of(of).p50 / Distribution.of(base).p50, 3)


def _each(one: Stretch, many: Stretch) -> float:
    return (many.pss - one.pss) / (MANY - ONE)


async def _stretch(count: int, seconds: float, samples: int, *, shared: bool) -> Stretch:
    with folder.passing("node") as here:
        async with crowd(here, count, shared=shared) as listeners:
            pids = sorted({each.pid for each in listeners})
            await asyncio.sleep(1.0)
            quiet = await _cost(listeners, pids, seconds)
            with bystanders.starting(STARTS_A_SECOND):
                busy = await _cost(listeners, pids, seconds)
            memory = pss(pids)
            writes = [await each.write_to_fact() for each in _in_turn(listeners, samples)]
            starts = [await each.start_to_fact() for each in _in_turn(listeners, samples)]
            others = await asyncio.to_thread(bystanders.timed, samples // 4)
    return Stretch(quiet, busy, memory, writes, starts, others)


async def _cost(listeners: list[Listener], pids: list[int], seconds: float) -> Cost:
    """With a heartbeat a second from each, as with the default dead-man time of 5 s."""
    before = Reading.of(pids)
    for _ in range(int(seconds)):
        for each in listeners:
            each.beat()
        await asyncio.sleep(1.0)
    return Cost.between(before, Reading.of(pids))


def _in_turn(listeners: list[Listener], samples: int) -> list[Listener]:
    return [listeners[number % len(listeners)] for number in range(samples)]
