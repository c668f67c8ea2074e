"""What running processes cost: CPU time, memory of their own, and how often they are woken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proofbeat.ephemeral.clock import now


@dataclass(frozen=True, slots=True)
class Reading:
    """At a moment (CLOCK_BOOTTIME seconds). ran: seconds of CPU. woken: times that a thread was woken."""

    at: float
    ran: float
    woken: int

    @classmethod
    def of(cls, pids: Sequence[int]) -> Reading:
        """Of all threads of these processes, to the nanosecond (schedstat) where a clock tick says nothing."""
        threads = [thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()]
        ran = sum(int((each / "schedstat").read_text().split()[0]) for each in threads)
        return cls(now(), ran / 1e9, sum(_woken(each) for each in threads))


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a while. cpu: in % of a core. wakes: a second."""

    cpu: float
    wakes: float

    @classmethod
    def between(cls, before: Reading, after: Reading) -> Cost:
        seconds = after.at - before.at
        return cls((after.ran - before.ran) / seconds * 100, (after.woken - before.woken) / seconds)


def pss(pids: Sequence[int]) -> float:
    """Proportional set size of all together, in MB (10^6 bytes), from smaps_rollup."""
    return sum(_pss(pid) for pid in pids)


def _pss(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return kib * 1024 / 1e6


def _woken(thread: Path) -> int:
    """Voluntary switches: each ends with a wake-up."""
    status = (thread / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches:"))
