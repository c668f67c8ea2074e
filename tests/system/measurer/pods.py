"""A pod, as far as namespaces go: workload and measurer in other ones than the machine's, of pids, network, mounts."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

from tests.system.measurer.stage import Workload

_APART = ("unshare", "--pid", "--net", "--mount", "--fork", "--kill-child", "--mount-proc")


class Pod:
    """A process that does nothing, first in its namespaces. inside: what comes before a command that runs there."""

    def __enter__(self) -> Pod:
        line = "echo; exec sleep 1000"
        self._process = subprocess.Popen([*_APART, "sh", "-c", line], stdout=subprocess.PIPE)
        assert self._process.stdout
        self._process.stdout.readline()
        (first,) = _children(self._process.pid)
        self.inside = ("nsenter", f"--target={first}", "--pid", "--net", "--mount", "--")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def workload(self) -> Workload:
        return Workload(self.inside)


def inside(workload: Workload) -> int:
    """The pid of a pod's workload, as its own namespace numbers it."""
    (own,) = _children(workload.pid)
    text = Path(f"/proc/{own}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("NSpid:")).split()[-1])


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
