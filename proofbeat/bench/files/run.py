"""`bench files`: 10,000 and 100,000 files, read in full, checked again, and one of them changed."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attestation.channel import Observed, Scope
from attestation.facts import FileChange, FileFact
from attestation.layers import Layer, Method
from policies.model.policy import REREAD
from proofbeat.bench.figures import Budget, Distribution, Figure, Report, Value
from proofbeat.bench.files import peers
from proofbeat.bench.files.peers import Aide
from proofbeat.bench.files.probe import Probe

SIZES = {"10k": 10_000, "100k": 100_000}
BYTES = 7168
A_FOLDER = 50
"""Files in one: 2,000 folders where there are 100,000 files."""
LARGE = 1 << 30
_RESTED = 0.5
"""Seconds after which one change has nothing to do with the one before: measurements by event rest in between."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Milliseconds each. peers: name -> what it took. processor: of that, what checking again took of a processor."""

    full: list[float]
    again: list[float]
    fact: list[float]
    fresh: list[float]
    peers: Mapping[str, list[float]]
    processor: float
    pss: float
    manifest: int


async def run(*, quick: bool) -> Report:
    """quick: without the 100,000 files."""
    sizes = {name: count for name, count in SIZES.items() if not quick or name == "10k"}
    found = {name: await asyncio.to_thread(_measured, count, 2 if quick else 3) for name, count in sizes.items()}
    early, late = await asyncio.to_thread(_of_a_large_file, 5 if quick else 10)
    figures: dict[str, Figure] = {}
    beside: dict[str, dict[str, Figure | str]] = {"find|xargs sha256sum": {}, "aide --check": {}}
    if not peers.has_aide():
        beside["aide --check"] = {**peers.MISSING}
    for name, each in found.items():
        figures |= {
            f"full_{name}": Distribution.of(each.full),
            f"again_{name}": Distribution.of(each.again),
            f"again_processor_{name}": Value("ms", round(each.processor, 1)),
            f"event_to_fact_{name}": Distribution.of(each.fact),
            f"event_to_fresh_{name}": Distribution.of(each.fresh),
            f"measurer_pss_{name}": Value("MiB", round(each.pss, 1)),
            f"manifest_{name}": Value("MB", round(each.manifest / 1e6, 2)),
        }
        for peer, took in each.peers.items():
            beside[peer][f"check_{name}"] = Distribution.of(took)
    figures["reread_10k_each_10_min"] = Value("% of a core", await asyncio.to_thread(_cost_of_chance))
    figures |= {"event_to_early_fact_1GiB": early, "event_to_fact_1GiB": late}
    largest = list(found)[-1]
    return Report("files", figures, tuple(_budgets(largest, found[largest], found)), peers=beside)


def _budgets(name: str, found: Sizes, every: Mapping[str, Sizes]) -> Iterator[Budget]:
    again = Distribution.of(found.again).p50
    yield Budget(f"{name} files checked again, p50 in ms", 400.0, again)
    for each, sizes in every.items():
        fresh = Distribution.of(sizes.fresh).p50
        yield Budget(f"event to fresh measurement of {each} files, p50 in ms", 5.0, fresh)
    yield Budget(f"manifest of {name} files in MB", 15.0, found.manifest / 1e6)
    yield Budget(f"measurer, PSS with {name} files in MiB", 24.0, found.pss)
    if "aide --check" in found.peers:
        aide = Distribution.of(found.peers["aide --check"]).p50
        yield Budget(
            f"{name} files: so many times as fast as aide --check", 10.0, round(aide / again, 1), at_least=True
        )


@contextmanager
def _tree(count: int) -> Iterator[tuple[Path, Path]]:
    """A tree of so many files, and a folder beside it."""
    with tempfile.TemporaryDirectory(prefix="proofbeat-bench-") as folder:
        tree = Path(folder, "tree")
        for number in range(-(-count // A_FOLDER)):
            below = tree / f"{number // 40:03}" / f"{number % 40:03}"
            below.mkdir(parents=True)
            for each in range(min(A_FOLDER, count - number * A_FOLDER)):
                (below / f"module_{each:02}.py").write_bytes(f"{number}/{each} ".encode().ljust(BYTES, b"x"))
        yield tree, Path(folder)


@contextmanager
def _workload() -> Iterator[int]:
    running = subprocess.Popen(["sleep", "infinity"])
    try:
        yield running.pid
    finally:
        running.kill()
        running.wait()


def _measured(count: int, repeats: int) -> Sizes:
    with _tree(count) as (tree, beside), _workload() as pid, Probe(Scope(pid, (str(tree),))) as probe:
        probe.measured(full=True)
        time.sleep(0.1)  # what was written just now has no stamp that can be known again
        probe.measured(full=False)
        aide = Aide(tree, beside) if peers.has_aide() else None
        full, again, took = [], [], {"find|xargs sha256sum": list[float]()}
        processor = 0.0
        for _ in range(repeats):  # in turn, so that what the machine does meanwhile is everybody's
            full.append(probe.measured(full=True) * 1000)
            before = probe.processor
            again += [probe.measured(full=False) * 1000 for _ in range(3)]
            processor += probe.processor - before
            took["find|xargs sha256sum"].append(peers.sha256sum(tree) * 1000)
            if aide is not None:
                took.setdefault("aide --check", []).append(aide.check() * 1000)
        changes = [_changed(probe, tree, number) for number in range(30)]
        fact, fresh = ([each[which] for each in changes] for which in (0, 1))
        spent = processor / len(again) * 1000
        return Sizes(full, again, fact, fresh, took, spent, probe.pss, probe.files_bytes)


def _changed(probe: Probe, tree: Path, number: int) -> tuple[float, float]:
    """From the close of a file that was written to the fact, and to the manifest that has it."""
    file = tree / f"{number % 5:03}" / f"{number:03}" / f"module_{number:02}.py"
    with open(file, "r+b", buffering=0) as held:
        held.write(b"other")
        began = time.monotonic()
    probe.expect(FileFact, lambda each: each.path == str(file))
    fact = time.monotonic()
    probe.expect(Observed, lambda each: each.observation.method is Method.EVENT)
    fresh = time.monotonic()
    time.sleep(_RESTED)
    return (fact - began) * 1000, (fresh - began) * 1000


def _cost_of_chance() -> float:
    """Percent of a core to read each of 10,000 files again every 10 minutes: from every 20 s, which can be weighed."""
    often, watched = 20.0, 10.0
    shares = []
    with _tree(10_000) as (tree, _), _workload() as pid:
        for mean in (often, 1e9):
            with Probe(Scope(pid, (str(tree),), reread=mean)) as probe:
                probe.measured(full=True)
                time.sleep(0.1)
                probe.measured(full=False)
                before = probe.processor
                time.sleep(watched)
                shares.append((probe.processor - before) / watched)
    return round((shares[0] - shares[1]) * often / REREAD * 100, 3)


def _of_a_large_file(repeats: int) -> tuple[Distribution, Distribution]:
    """From a write into 1 GiB to the fact before it is read, and to the one with its digest."""
    early, late = [], []
    with _tree(1) as (tree, _), _workload() as pid:
        file = tree / "large"
        with open(file, "wb") as made:
            made.truncate(LARGE)
        with Probe(Scope(pid, (str(tree),), immutable=True)) as probe:
            probe.measured(full=True)
            for number in range(repeats):
                with open(file, "r+b", buffering=0) as held:
                    held.write(bytes([number + 1]))
                    began = time.monotonic()
                probe.expect(FileFact, lambda each: each.change is FileChange.WRITTEN)
                early.append((time.monotonic() - began) * 1000)
                probe.expect(FileFact, lambda each: each.change is FileChange.MODIFIED)
                late.append((time.monotonic() - began) * 1000)
                probe.expect(Observed, lambda each: each.observation.layer is Layer.FILES)
    return Distribution.of(early), Distribution.of(late)
