"""Processes of a benchmark under a limit of the kernel for a while (cgroups(7), version 1). Needs root."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
TENTH_OF_A_CPU = (10_000, 100_000)
"""Microseconds of running in a period of so many (cpu.cfs_quota_us, cpu.cfs_period_us)."""


def may_throttle() -> bool:
    """Is this root, on a machine whose CPU controller is one of version 1?"""
    return os.geteuid() == 0 and (CGROUPS / "cpu" / "cgroup.procs").exists()


def throttled(pids: Sequence[int]) -> AbstractContextManager[Path]:
    """A tenth of a CPU for all of them together, as a container's limit would have it. Yields their group."""
    quota, period = TENTH_OF_A_CPU
    return limited("cpu", {"cpu.cfs_period_us": period, "cpu.cfs_quota_us": quota}, pids)


def share_throttled(group: Path) -> float:
    """The share of periods in which a group had used up its quota and waited (cpu.stat)."""
    stat = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(stat["nr_throttled"]) / max(1, int(stat["nr_periods"]))


@contextmanager
def limited(controller: str, settings: Mapping[str, int], pids: Sequence[int]) -> Iterator[Path]:
    """The processes in a group of their own under these settings, and back where they were. Yields the group."""
    before = {pid: _group_of(pid, controller) for pid in pids}
    group = CGROUPS / controller / f"proofbeat-bench-{os.getpid()}"
    group.mkdir()
    try:
        for name, value in settings.items():
            (group / name).write_text(str(value))
        for pid in pids:
            _move(pid, group)
        yield group
    finally:
        for line in (group / "cgroup.procs").read_text().split():
            _move(int(line), before.get(int(line), CGROUPS / controller))
        # A process that was killed leaves the group when the kernel is done with it.
        for _ in range(200):
            with suppress(OSError):
                group.rmdir()
                break


def _group_of(pid: int, controller: str) -> Path:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return CGROUPS / controller / path.lstrip("/")
    return CGROUPS / controller


def _move(pid: int, group: Path) -> None:
    with suppress(OSError):  # it has ended
        (group / "cgroup.procs").write_text(str(pid))
