"""`bench xds-push`: one secret rotated again and again to 1, 200 and 1,000 streams that acknowledge each version.

Our server and go-control-plane's take turns, each in a process of its own that measures itself the same way; the load
is the same program for both. What a push costs in CPU time compares them by the core: ours has one, Go takes all.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from attestation.errors import Unavailable
from proofbeat.bench import peers
from proofbeat.bench.figures import Budget, Distribution, Figure, Report, Value
from proofbeat.ephemeral import folder
from proofbeat.ephemeral.children import Child, Children

OURS, PEER = "proofbeat", "go-control-plane"
DELTA, SOTW = "delta", "sotw"
STREAMS_A_CONNECTION = 100
WARM_UP = 5
WITHIN_SECONDS = 30.0
BUDGETED = 200
MOST_ROTATION_MS, LEAST_PUSHES, LEAST_RATIO = 22.0, 8000.0, 1 / 3


@dataclass(frozen=True, slots=True)
class Course:
    """How one kind of load is measured: so many turns of so many rotations by each server."""

    protocol: str
    streams: int
    turns: int
    rotations: int

    @property
    def key(self) -> str:
        return f"{self.protocol}_{self.streams}"


COURSES = (
    Course(DELTA, 1, 4, 500),
    Course(DELTA, 200, 10, 50),
    Course(SOTW, 200, 5, 50),
    Course(DELTA, 1000, 6, 20),
)
QUICK = (Course(DELTA, 1, 2, 100), Course(DELTA, 200, 3, 20), Course(SOTW, 200, 1, 20), Course(DELTA, 1000, 1, 10))


@dataclass(slots=True)
class Tally:
    """What one server did in one course. rotations: ms each. rss: bytes with all streams open, at the end."""

    course: Course
    rotations: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    rss: int = 0

    @property
    def pushes(self) -> int:
        return len(self.rotations) * self.course.streams

    @property
    def pushes_per_second(self) -> float:
        return self.pushes / (sum(self.rotations) / 1000) if self.rotations else float("nan")

    @property
    def cpu_us_a_push(self) -> float:
        return self.cpu_seconds * 1e6 / self.pushes if self.pushes else float("nan")

    def figures(self) -> dict[str, Figure]:
        key = self.course.key
        return {
            f"{key}_pushes_acknowledged": Value("1/s", round(self.pushes_per_second)),
            f"{key}_rotation_to_the_last_acknowledgement": Distribution.of(self.rotations),
            f"{key}_server_cpu_a_push": Value("us", round(self.cpu_us_a_push, 1)),
            f"{key}_server_rss": Value("MB", round(self.rss / 1e6, 1)),
        }


async def run(*, quick: bool) -> Report:
    built = peers.binary("xds")
    tallies: dict[str, list[Tally]] = {OURS: [], **({PEER: []} if built else {})}
    for course in QUICK if quick else COURSES:
        # Without the peer there is a load for incremental discovery alone.
        if built or course.protocol == DELTA:
            for name, tally in (await measured(course, built)).items():
                tallies[name].append(tally)
    return report(tallies)


def report(tallies: Mapping[str, Sequence[Tally]]) -> Report:
    """Pure. Only what was measured on both sides is compared."""
    figures = {name: _figures(each) for name, each in tallies.items()}
    budgets = [
        budget for tally in tallies[OURS] if tally.course.key == f"{DELTA}_{BUDGETED}" for budget in _ours(tally)
    ]
    for ours, theirs in zip(tallies[OURS], tallies.get(PEER, ()), strict=False):
        if ours.course.key == f"{DELTA}_{BUDGETED}":
            ratio = theirs.cpu_us_a_push / ours.cpu_us_a_push
            what = f"pushes a second of CPU to {BUDGETED} streams, as a share of {PEER}'s"
            budgets.append(Budget(what, LEAST_RATIO, round(ratio, 3), at_least=True))
    return Report("xds-push", figures[OURS], tuple(budgets), peers={PEER: figures.get(PEER) or peers.MISSING})


def _ours(tally: Tally) -> list[Budget]:
    streams, rotation = tally.course.streams, Distribution.of(tally.rotations)
    return [
        Budget(f"acknowledged pushes/s to {streams} streams", LEAST_PUSHES, tally.pushes_per_second, at_least=True),
        Budget(
            f"one rotation to {streams} streams, to the last acknowledgement, p50 in ms", MOST_ROTATION_MS, rotation.p50
        ),
    ]


def _figures(tallies: Sequence[Tally]) -> dict[str, Figure]:
    return {name: figure for tally in tallies for name, figure in tally.figures().items()}


async def measured(course: Course, built: Path | None) -> dict[str, Tally]:
    """Both servers with their streams open all the time; they rotate in turn, the other one idle."""
    async with _children() as (here, children):
        served = {OURS: await _served(children, here / OURS, course, _ours_at, built)}
        if built is not None:
            served[PEER] = await _served(children, here / PEER, course, _peer_at(built), built)
        tallies = {name: Tally(course) for name in served}
        for _ in range(course.turns):
            for name, server in served.items():
                await server.rotate(WARM_UP)
                took, cpu = await server.rotate(course.rotations)
                tallies[name].rotations += took
                tallies[name].cpu_seconds += cpu
        for name, server in served.items():
            tallies[name].rss = _rss(server.pid)
        return tallies


def _ours_at(socket: Path, streams: int) -> list[str]:
    return [sys.executable, "-P", "-m", "proofbeat.bench.push.server", str(socket), str(streams)]


def _peer_at(built: Path) -> Callable[[Path, int], list[str]]:
    return lambda socket, streams: [str(built), "serve", "-socket", str(socket), "-streams", str(streams)]


def _load(socket: Path, course: Course, built: Path | None) -> list[str]:
    streams, connections = str(course.streams), str(-(-course.streams // STREAMS_A_CONNECTION))
    if built is None:
        return [sys.executable, "-P", "-m", "proofbeat.bench.push.load", str(socket), streams, connections]
    command = [str(built), "load", "-socket", str(socket), "-streams", streams, "-connections", connections]
    return [*command, "-sotw"] if course.protocol == SOTW else command


class Served:
    """A server with its streams open, under orders."""

    def __init__(self, child: Child) -> None:
        self._child = child

    @property
    def pid(self) -> int:
        return self._child.pid

    async def rotate(self, times: int) -> tuple[list[float], float]:
        """Milliseconds of each rotation, and CPU seconds of all. Raises Unavailable."""
        stdin = self._child.process.stdin
        if stdin is None:
            raise Unavailable("the server has no input", where=self._child.name)
        stdin.write(b"%d\n" % times)
        told = json.loads(await self.hear())
        return told["rotations_ms"], told["cpu_seconds"]

    async def hear(self) -> str:
        """Its next line. Raises Unavailable where none comes."""
        return await self._child.line(WITHIN_SECONDS)


async def _served(
    children: Children,
    socket: Path,
    course: Course,
    command: Callable[[Path, int], list[str]],
    built: Path | None,
) -> Served:
    """Started, with all streams open and the first version acknowledged. Raises Unavailable."""
    pipe = asyncio.subprocess.PIPE
    server = Served(await children.start(socket.name, command(socket, course.streams), stdin=pipe, stdout=pipe))
    await server.hear()
    await children.start(f"{socket.name}-load", _load(socket, course, built), stdin=pipe)
    await server.hear()
    return server


@asynccontextmanager
async def _children() -> AsyncIterator[tuple[Path, Children]]:
    with folder.passing("bench") as here:
        async with asyncio.TaskGroup() as tasks:
            children = Children(here, tasks)
            try:
                yield here, children
            finally:
                await children.end()


def _rss(pid: int) -> int:
    """Bytes (proc_pid_status(5), VmRSS)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
