"""`bench gate`: what an execution takes with a gate before it, beside the same without one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from attestation import elf
from attestation.channel import Covered, Gate, Scope
from attestation.errors import Unavailable
from proofbeat.bench.costs import Reading, pss
from proofbeat.bench.figures import Budget, Distribution, Figure, Report, Value
from proofbeat.bench.files.probe import Probe
from proofbeat.ephemeral import folder
from sidecar.gating import listed

PEER = "the same without a gate"
PROGRAM = Path("/bin/true")
LARGE = 10_000_000
EXTRA_MS = 0.3
"""Allowed on top of an execution whose digest is known, in the middle of all."""
_APART = ("unshare", "--mount", "--propagation", "private")
_AT_ONCE = 10
"""Executions of one kind before another has its turn."""
_RUNNER = """
import json, os, sys, time
for line in sys.stdin:
    took = []
    for path in json.loads(line):
        began = time.perf_counter()
        try:
            os.waitpid(os.posix_spawn(path, [path], {}), 0)
        except PermissionError:
            pass
        took.append((time.perf_counter() - began) * 1000)
    print(json.dumps(took), flush=True)
"""


class Runner:
    """A workload with a mount namespace of its own that executes what it is told, and says what each took in ms."""

    def __init__(self, here: Path) -> None:
        self.here = here
        here.mkdir()
        self._process = subprocess.Popen(
            [*_APART, sys.executable, "-c", _RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.run([PROGRAM])

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, programs: Sequence[Path]) -> list[float]:
        """Raises Unavailable where it has ended."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise Unavailable("it cannot be told anything", where="bench gate")
        stdin.write(json.dumps([str(each) for each in programs]) + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise Unavailable("the workload has ended", where="bench gate", mend="It takes root: `unshare --mount`.")
        took: list[float] = json.loads(answer)
        return took

    def copies(self, source: Path, count: int) -> list[Path]:
        """Files that nobody has read yet."""
        made = [self.here / f"{source.name}-{number}" for number in range(count)]
        for each in made:
            shutil.copy(source, each)
        return made

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


async def run(*, quick: bool) -> Report:
    return await asyncio.to_thread(_measured, 100 if quick else 1000, 30 if quick else 100)


def _measured(often: int, seldom: int) -> Report:
    """often, seldom: how many executions of what is known, and of what has to be read first."""
    with folder.passing("bench") as here, ExitStack() as undo:
        large, foreign = _padded(here / "large", LARGE), _padded(here / "foreign", 1)
        gated, free = Runner(here / "gated"), Runner(here / "free")
        undo.callback(gated.end)
        undo.callback(free.end)
        tree = here / "tree"
        tree.mkdir()
        probe = undo.enter_context(Probe(Scope(gated.pid, (str(tree),))))
        undo.enter_context(Probe(Scope(free.pid, (str(tree),))))
        _stand(probe, (PROGRAM, large))
        kinds: Mapping[str, tuple[int, Callable[[Runner], Iterator[list[Path]]]]] = {
            "execution_known": (often, lambda _: _always(PROGRAM)),
            "execution_unread": (seldom, lambda runner: _fresh(runner, PROGRAM)),
            "execution_unread_10MB": (seldom, lambda runner: _fresh(runner, large)),
        }
        found: dict[str, dict[Runner, list[float]]] = {}
        for name, (count, programs) in kinds.items():
            taken: dict[Runner, list[float]] = {gated: [], free: []}
            turns = {each: programs(each) for each in taken}
            for _ in range(count // _AT_ONCE):
                for each in taken:  # in turn, so that what the machine does meanwhile is everybody's
                    taken[each] += each.run(next(turns[each]))
            found[name] = taken
        refused = gated.run([foreign] * seldom)
        gate = _gate_of(probe)
        before = Reading.of((gate,))
        gated.run([PROGRAM] * often)
        spent = (Reading.of((gate,)).ran - before.ran) / often
        figures: dict[str, Figure] = {}
        for name, taken in found.items():
            with_gate, without = (Distribution.of(taken[each]) for each in (gated, free))
            figures |= {
                name: with_gate,
                f"{name}_extra_p50": Value("ms", round(with_gate.p50 - without.p50, 3)),
                f"{name}_extra_p99": Value("ms", round(with_gate.p99 - without.p99, 3)),
            }
        figures["refused"] = Distribution.of(refused)
        figures["gate_processor"] = Value("ms of CPU an execution", round(spent * 1000, 3))
        figures["gate_pss"] = Value("MB", round(pss((gate,)), 1))
        beside: dict[str, Figure | str] = {name: Distribution.of(taken[free]) for name, taken in found.items()}
    extra = figures["execution_known_extra_p50"]
    measured = extra.value if isinstance(extra, Value) else 0.0
    budget = Budget("on top of an execution whose digest is known, p50 in ms", EXTRA_MS, measured)
    return Report("gate", figures, (budget,), peers={PEER: beside})


def _stand(probe: Probe, programs: Sequence[Path]) -> None:
    """A gate that lets these run, with the loader that they ask for."""
    with PROGRAM.open("rb") as file:
        loader = elf.interpreter(lambda size, offset: os.pread(file.fileno(), size, offset))
    files = [*programs, *([Path(loader)] if loader else [])]
    descriptor = listed(hashlib.sha256(each.read_bytes()).hexdigest() for each in files)
    try:
        probe.send(Gate(stands=True), descriptor)
    finally:
        os.close(descriptor)
    probe.expect(Covered, lambda each: each.coverage.gated)


def _always(program: Path) -> Iterator[list[Path]]:
    while True:
        yield [program] * _AT_ONCE


def _fresh(runner: Runner, program: Path) -> Iterator[list[Path]]:
    while True:
        yield runner.copies(program, _AT_ONCE)


def _padded(path: Path, most: int) -> Path:
    shutil.copy(PROGRAM, path)
    with path.open("ab") as file:
        file.write(bytes(most))
    return path


def _gate_of(probe: Probe) -> int:
    children = Path(f"/proc/{probe.pid}/task/{probe.pid}/children").read_text().split()
    return next(int(each) for each in children if b"measurer.gate" in Path(f"/proc/{each}/cmdline").read_bytes())
