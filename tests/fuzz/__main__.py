"""`python -m tests.fuzz [--seconds N] [--jobs N] [TARGET ...]`: every parser against mutated input, a line a target.

`python -m tests.fuzz --replay FILE TARGET` runs one input, without atheris. Exit code 1 where something was found.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.catalogue import TARGETS
from tests.fuzz.target import Target

ROOT = Path(__file__).parents[2]
GROWN = ROOT / ".cache" / "fuzz"
"""What earlier runs found worth keeping, so that a run begins where the last one ended."""
_MEMORY = Path("/dev/shm")
_SLOW_SECONDS, _MOST_MEGABYTES = 10, 1024
_STARTED = re.compile(rb"INITED cov: (\d+)")
_COVERED = re.compile(rb" cov: (\d+) ft: ")
_EXECUTED = re.compile(rb"stat::number_of_executed_units: (\d+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One target's run. covered, started: edges of the code under test reached at the end and by the corpus alone."""

    target: str
    seconds: int
    executed: int
    started: int
    covered: int
    finding: Path | None
    log: bytes

    def line(self) -> str:
        rate = self.executed / self.seconds
        said = f"{self.target:20} {self.executed:>10} runs {rate:>8.0f}/s  edges {self.started} -> {self.covered}"
        if self.finding is None:
            return said + "  no finding"
        again = f".venv/bin/python -m tests.fuzz --replay {self.finding.relative_to(ROOT)} {self.target}"
        return f"{said}  FINDING\n  replay: {again}\n  keep:   copy it to tests/fuzz/corpus/{self.target}/"


def hunt(target: Target, seconds: int) -> Outcome:
    """Mutates for so many seconds, or until the first finding."""
    grown, findings = GROWN / target.name, GROWN / "findings" / target.name
    for folder in (grown, findings):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="proofbeat-hunt-", dir=_MEMORY if _MEMORY.is_dir() else None) as scratch:
        seeds, words = Path(scratch, "seeds"), Path(scratch, "words")
        seeds.mkdir()
        for number, data in enumerate(target.corpus().values()):
            (seeds / str(number)).write_bytes(data)
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        known = set(findings.iterdir())
        options: dict[str, object] = {
            "max_total_time": seconds,
            "max_len": target.most_bytes,
            "timeout": _SLOW_SECONDS,
            "rss_limit_mb": _MOST_MEGABYTES,
            "artifact_prefix": f"{findings}/",
            "print_final_stats": 1,
        }
        if target.words:
            options["dict"] = words
        arguments = [f"-{name}={value}" for name, value in options.items()]
        command = [sys.executable, "-m", "tests.fuzz.hunt", target.name, *arguments, str(grown), str(seeds)]
        environment = {**os.environ, "TMPDIR": scratch}
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
    new = sorted(set(findings.iterdir()) - known)
    if ran.returncode and not new:
        raise SystemExit(f"{target.name}: the fuzzer itself failed\n{ran.stdout.decode(errors='replace')[-3000:]}")
    finding = new[0] if ran.returncode else None
    return Outcome(target.name, seconds, *_figures(ran.stdout), finding, ran.stdout)


def _figures(log: bytes) -> tuple[int, int, int]:
    executed, started, covered = _EXECUTED.findall(log), _STARTED.findall(log), _COVERED.findall(log)
    return tuple(int(found[-1]) if found else 0 for found in (executed, started, covered))  # type: ignore[return-value] # three


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02X}" for byte in word)


def replay(target: Target, path: Path) -> int:
    """The property on one input: its traceback where it does not hold."""
    target.check(path.read_bytes())
    sys.stdout.write(f"{target.name}: the property holds on {path}\n")
    return 0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one or more of: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--jobs", type=int, default=2, help="targets run at a time")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run this one input against TARGET")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.targets if name not in TARGETS]
    if unknown or (asked.replay and len(asked.targets) != 1):
        parser.error(
            f"no target {unknown[0]}: {', '.join(TARGETS)}" if unknown else "--replay needs exactly one TARGET"
        )
    targets = [TARGETS[name] for name in asked.targets or TARGETS]
    if asked.replay:
        return replay(targets[0], asked.replay)
    return hunt_all(targets, asked.seconds, asked.jobs)


def hunt_all(targets: list[Target], seconds: int, jobs: int) -> int:
    """A line a target as it ends; what led to a finding behind its line."""
    found = 0
    with ThreadPoolExecutor(jobs) as pool:
        for outcome in pool.map(lambda target: hunt(target, seconds), targets):
            sys.stdout.write(outcome.line() + "\n")
            if outcome.finding is not None:
                found += 1
                sys.stdout.write(outcome.log.partition(b"Uncaught")[2][:3000].decode(errors="replace") + "\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(targets)} targets, {seconds} s each, {found} with a finding\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
