"""`bench syscalls`: redis and nginx with a full core, watched in each way and by what else there is, in turn.

And what a call of somebody else's costs beside 1, 10 and 30 watched workloads. What the kernel takes for there being
any program at the entry of calls is measured by itself: that much of it no program of ours can spare.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median

from attestation.calls import NAMES, Watching
from attestation.channel import Calls, Covered, Listener, Scope
from attestation.layers import Layer
from proofbeat.bench.calls.entry import empty_program
from proofbeat.bench.calls.load import Nginx, Redis, Server, asking, serving
from proofbeat.bench.calls.tracers import TRACERS, missing, tracing
from proofbeat.bench.figures import Budget, Distribution, Figure, Report, Value
from proofbeat.bench.files.probe import Probe
from proofbeat.bench.node.crowd import crowd
from proofbeat.ephemeral import folder

EVERY = tuple(sorted(NAMES))
OURS = {"off": None, "entry": None, "lean": Calls(Watching.LEAN, EVERY), "strict": Calls(Watching.STRICT, EVERY)}
"""off: measured, but for calls. entry: the same, and a program that does nothing at the entry of every call."""
NOTIFIED, ASKED = "notified", "kcmp"
"""lean, and started under a filter that asks for a call which nobody makes: another server, for its whole life."""
MOST_STRICT, NOISE = 8.5, 3.0
"""Percent of the rate."""
LOOPS = 200_000
_SETTLED = 0.2
"""Seconds after another way was begun: what that takes once is not part of what it costs."""


async def run(*, quick: bool) -> Report:
    rounds, tracing_rounds, requests = (2, 1, 20_000) if quick else (25, 5, 40_000)
    figures: dict[str, Figure] = {}
    peers: dict[str, dict[str, Figure | str]] = {name: {} for name in TRACERS}
    budgets: list[Budget] = []
    for kind in (Redis, Nginx):
        with (
            folder.passing("syscalls") as here,
            serving(kind, here / kind.name) as server,
            _asking(kind, here / "asking") as asking,
        ):
            rates = await _rates(server, asking, here, rounds, tracing_rounds, requests)
        _state(kind.name, rates, figures, peers)
        budgets += _budgets(kind.name, rates)
    with empty_program():
        figures["call_elsewhere_entry"] = Distribution.of(await asyncio.to_thread(_calls), "ns")
    costs = {count: await _beside(count) for count in ((0, 1) if quick else (0, 1, 10, 30))}
    for count, nanoseconds in costs.items():
        figures[f"call_elsewhere_beside_{count}"] = Distribution.of(nanoseconds, "ns")
    if not quick:
        budgets.append(
            Budget("a call elsewhere beside 30 workloads, as a multiple of beside one", 1.1, _multiple(costs))
        )
    for name in TRACERS:
        if missing(name):
            peers[name] = {"missing": missing(name)}
    return Report("syscalls", figures, tuple(budgets), peers)


@contextmanager
def _asking(kind: type[Redis] | type[Nginx], here: Path) -> Iterator[Server]:
    """One under a filter, whose calls wait for a measurer of its own."""
    with asking((ASKED,)) as (start, listener), serving(kind, here, start) as server:
        calls = Calls(Watching.LEAN, EVERY, notified=True)
        with Probe(Scope(server.process.pid, (str(here),), deadman=600.0, calls=calls)) as probe:
            held = listener()
            probe.send(Listener(), held)
            os.close(held)
            probe.expect(Covered, lambda each: each.coverage.notified)
            yield server


async def _rates(
    server: Server, asking: Server, here: Path, rounds: int, tracing_rounds: int, requests: int
) -> dict[str, list[float]]:
    """Requests a second, of each way in turn, so that what the machine does otherwise meets all alike: many short
    rounds, and in each of them another one of ours is the first. What others lose shows in the first few.
    """
    ours, others = list(OURS), [name for name in TRACERS if not missing(name)]
    found: dict[str, list[float]] = {way: [] for way in (*ours, NOTIFIED, *others)}
    await server.rate(requests)
    await asking.rate(requests)
    with Probe(_scope(server, here, "off")) as probe:
        _measure(probe, Layer.PROCESSES)
        for each in range(rounds):
            first = each % len(ours)
            for way in (*ours[first:], *ours[:first]):
                with _watched(way, server, here, probe):
                    found[way].append(await server.rate(requests))
            found[NOTIFIED].append(await asking.rate(requests))
            for way in others if each < tracing_rounds else ():
                with tracing(way, server.process.pid):
                    found[way].append(await server.rate(requests // (1 if way == "bpftrace" else 2)))
    return found


@contextmanager
def _watched(way: str, server: Server, here: Path, probe: Probe) -> Iterator[None]:
    """From now on, and as "off" again."""
    with empty_program() if way == "entry" else nullcontext():
        probe.send(_scope(server, here, way))
        _measure(probe, Layer.PROCESSES if OURS[way] is None else Layer.SYSCALLS)
        time.sleep(_SETTLED)
        yield
    probe.send(_scope(server, here, "off"))
    _measure(probe, Layer.PROCESSES)


def _scope(server: Server, here: Path, way: str) -> Scope:
    return Scope(server.process.pid, (str(here),), deadman=600.0, calls=OURS[way])


def _measure(probe: Probe, layer: Layer) -> None:
    """Messages are taken in their sequence: what was sent before this holds by then."""
    probe.measured(full=False, layer=layer)


def _state(
    name: str, rates: dict[str, list[float]], figures: dict[str, Figure], peers: dict[str, dict[str, Figure | str]]
) -> None:
    for way, found in rates.items():
        figure = Distribution.of(found, "requests/s")
        if way in TRACERS:
            peers[way] |= {f"{name}_rate": figure, f"{name}_lost": Value("%", round(_lost(rates, way), 1))}
        else:
            figures[f"{name}_{way}_rate"] = figure
            if way != "off":
                figures[f"{name}_{way}_lost"] = Value("%", round(_lost(rates, way), 1))


def _lost(rates: dict[str, list[float]], way: str) -> float:
    """Percent of the rate, at the median of the rounds that it was in: each round is held against itself."""
    return median(100 * (1 - with_it / without) for with_it, without in zip(rates[way], rates["off"], strict=False))


def _budgets(name: str, rates: dict[str, list[float]]) -> list[Budget]:
    return [
        Budget(f"{name}: rate lost by lean, in %", NOISE, round(_lost(rates, "lean"), 1)),
        Budget(f"{name}: rate lost by strict, in %", MOST_STRICT, round(_lost(rates, "strict"), 1)),
    ]


async def _beside(count: int) -> list[float]:
    """Nanoseconds of a call of ours that nobody watches, beside so many strictly watched workloads."""
    if count == 0:
        return await asyncio.to_thread(_calls)
    with folder.passing("syscalls") as here:
        async with crowd(here, count, shared=True, calls=OURS["strict"]):
            return await asyncio.to_thread(_calls)


def _calls() -> list[float]:
    found = []
    for _ in range(15):
        began = time.perf_counter_ns()
        for _ in range(LOOPS):
            os.getppid()
        found.append((time.perf_counter_ns() - began) / LOOPS)
    return found


def _multiple(costs: dict[int, list[float]]) -> float:
    return round(median(costs[30]) / median(costs[1]), 3)
