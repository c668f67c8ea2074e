"""`bench memory`: looks into redis, a JVM, Node and CPython, beside reading all of their code and hashing it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attestation.channel import Measure, Scope
from attestation.errors import Unavailable
from attestation.facts import MemoryFact
from attestation.layers import Layer
from attestation.memory import CodeKind
from policies.model.memory import PERIOD
from proofbeat.bench.figures import Budget, Distribution, Figure, Report, Value
from proofbeat.bench.files.probe import Probe
from proofbeat.bench.memory import services

PEER = "text hashed against its file"
_SELDOM = 3600.0
_OFTEN = 0.5
_AT_REST = 10.0
"""Seconds over which the cost is weighed, with looks that come ten times as often as by default."""
_CHUNK = 1 << 20


@dataclass
class Found:
    """Milliseconds each, taken in turn. cost: percent of a core at the default period."""

    look: list[float] = field(default_factory=list)
    full: list[float] = field(default_factory=list)
    patched: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    cost: float = 0.0
    mappings: int = 0
    executable: int = 0
    text: int = 0


async def run(*, quick: bool) -> Report:
    present = [name for name in services.COMMANDS if not services.missing(name)]
    found = {name: await asyncio.to_thread(_measured, name, 10 if quick else 100) for name in present}
    return report(found)


def report(found: Mapping[str, Found]) -> Report:
    """Pure."""
    figures: dict[str, Figure] = {}
    beside: dict[str, Figure | str] = {}
    budgets = []
    for name in services.COMMANDS:
        each = found.get(name)
        if each is None:
            beside[f"missing_{name}"] = f"{services.COMMANDS[name][0]} is not installed here"
            continue
        figures |= {
            f"look_{name}": Distribution.of(each.look),
            f"full_{name}": Distribution.of(each.full),
            f"patched_to_fact_{name}": Distribution.of(each.patched),
            f"cost_{name}_each_{PERIOD:g}_s": Value("% of a core", round(each.cost, 3)),
            f"mappings_{name}": Value("of all kinds", each.mappings),
            f"executable_{name}": Value("mappings", each.executable),
            f"text_{name}": Value("MiB", round(each.text / 2**20, 1)),
        }
        beside[f"look_{name}"] = Distribution.of(each.peer)
        ours, theirs = Distribution.of(each.look).p50, Distribution.of(each.peer).p50
        times = round(theirs / ours, 1) if ours else float("nan")
        budgets.append(Budget(f"{name}: so many times as fast as hashing its text", 2.0, times, at_least=True))
        budgets.append(Budget(f"{name}: cost of looking each {PERIOD:g} s in % of a core", 0.5, each.cost))
    return Report("memory", figures, tuple(budgets), peers={PEER: beside})


def _measured(name: str, repeats: int) -> Found:
    found = Found()
    with tempfile.TemporaryDirectory(prefix="proofbeat-bench-") as folder, services.service(name, Path(folder)) as pid:
        found.mappings, found.executable = services.mappings(pid)
        found.text = sum(end - start for start, end, _, _ in services.text(pid))
        with Probe(Scope(pid, (), deadman=600.0, memory=_SELDOM)) as probe:
            probe.measured(full=True, layer=Layer.MEMORY)
            for number in range(repeats):  # in turn, so that what the machine does meanwhile is everybody's
                found.look.append(probe.measured(full=False, layer=Layer.MEMORY) * 1000)
                found.peer.append(_hashed(pid) * 1000)
                found.patched.append(_patched(probe, pid) * 1000)
                if number % 10 == 0:
                    found.full.append(probe.measured(full=True, layer=Layer.MEMORY) * 1000)
        found.cost = _cost(pid)
    return found


def _hashed(pid: int) -> float:
    """Seconds to read all code in memory, and all that its files hold. Raises Unavailable where they differ."""
    began = time.monotonic()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end, offset, path in services.text(pid):
            with open(path, "rb", buffering=0) as file:
                there = os.pread(memory.fileno(), end - start, start)
                held = os.pread(file.fileno(), end - start, offset)
            shorter = len(held)  # beyond the end of the file its last page is empty
            if hashlib.sha256(there[:shorter]).digest() != hashlib.sha256(held).digest():
                raise Unavailable(f"{path} differs in memory", where="bench memory", mend="Is somebody debugging it?")
    return time.monotonic() - began


def _patched(probe: Probe, pid: int) -> float:
    """Seconds from a write into code to the fact, where it is looked for at once; then it is put back."""
    at = next(end - 1 for _, end, _, path in services.text(pid) if "libc" in path)  # nothing is executed there
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        was = os.pread(memory.fileno(), 1, at)
        os.pwrite(memory.fileno(), bytes([was[0] ^ 0x55]), at)
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        probe.send(Measure((Layer.MEMORY,), began))
        fact = probe.expect(MemoryFact, lambda each: each.code.kind is CodeKind.PATCHED)
        os.pwrite(memory.fileno(), was, at)
    probe.measured(full=False, layer=Layer.MEMORY)
    return fact.at - began


def _cost(pid: int) -> float:
    shares = []
    for period in (_OFTEN, _SELDOM):
        with Probe(Scope(pid, (), deadman=600.0, memory=period)) as probe:
            probe.measured(full=True, layer=Layer.MEMORY)
            before = probe.processor
            time.sleep(_AT_REST)
            shares.append((probe.processor - before) / _AT_REST)
    return max(0.0, (shares[0] - shares[1]) * _OFTEN / PERIOD * 100)
