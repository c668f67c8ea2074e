"""A workload that a gate stands before, and what is tried to get past it."""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attestation.channel import Covered, Gate, Scope
from attestation.coverage import GATE, CollectorCoverage
from tests.system.measurer.stage import Sidecar, Workload

APART = ("unshare", "--mount", "--propagation", "private")
"""With a mount namespace of its own, on the file system that everybody shares here."""
TRUE, FALSE, SHELL, LOADER = Path("/bin/true"), Path("/bin/false"), Path("/bin/sh"), Path("/lib64/ld-linux-x86-64.so.2")

RUNNER = """
def ran(*command):
    try:
        return subprocess.run(command).returncode
    except OSError as error:
        return -error.errno
def tell(what):
    open(OUT, "w").write(str(what))
"""


class Gated(Workload):
    """Executes what it is told, and says how that ended."""

    def __init__(self, folder: Path) -> None:
        super().__init__(APART)
        self._out = folder / "answer"
        self.define(f"OUT = {str(self._out)!r}\n{RUNNER}")

    def define(self, code: str) -> None:
        self.do(f"exec({code!r}, globals())")

    def run(self, *command: str | Path) -> int:
        """Its exit status, or the negative errno of whoever would not execute it."""
        self.begin_to_run(*command)
        return self.outcome()

    def begin_to_run(self, *command: str | Path) -> None:
        self.begin(f"tell(ran(*{[str(each) for each in command]!r}))")

    def outcome(self) -> int:
        self.done()
        return int(self._out.read_text())


def foreign(folder: Path, name: str = "foreign") -> Path:
    """A program that nobody has listed."""
    made = Path(shutil.copy(TRUE, folder / name))
    with made.open("ab") as file:
        file.write(b"foreign")
    return made


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stand(sidecar: Sidecar, *allowed: Path) -> CollectorCoverage:
    """Have these executed alone, from the moment that this returns on."""
    order(sidecar, *allowed)
    return until(sidecar, stands=True)


def order(sidecar: Sidecar, *allowed: Path) -> None:
    listed = os.memfd_create("list", os.MFD_CLOEXEC)
    os.write(listed, b"".join(hashlib.sha256(each.read_bytes()).digest() for each in allowed))
    sidecar.send(Gate(True), listed)
    os.close(listed)


def until(sidecar: Sidecar, *, stands: bool) -> CollectorCoverage:
    """Until coverage says so."""

    def says_so(told: Covered) -> bool:
        return any(each.name == GATE and each.running is stands for each in told.coverage.collectors)

    coverage = sidecar.expect(Covered, says_so).coverage
    return next(each for each in coverage.collectors if each.name == GATE)


@contextmanager
def gated(workload: Workload, tree: Path, *allowed: Path) -> Iterator[Sidecar]:
    with Sidecar(Scope(workload.pid, (str(tree),))) as sidecar:
        sidecar.settle()
        stand(sidecar, *allowed)
        yield sidecar


def pid_of_gate(sidecar: Sidecar) -> int:
    children = Path(f"/proc/{sidecar.process.pid}/task/{sidecar.process.pid}/children").read_text().split()
    named = (int(each) for each in children if b"measurer.gate" in Path(f"/proc/{each}/cmdline").read_bytes())
    return next(named)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def hangs(workload: Workload, seconds: float = 0.3) -> bool:
    """What it was told to do is not over by then."""
    assert workload.process.stdout
    return not select.select([workload.process.stdout], [], [], seconds)[0]
