"""Executions by looking at the process table, for whom the kernel tells no events."""

from __future__ import annotations

import os
from collections.abc import Iterator

from measurer.processes.binaries import Binaries, Binary
from measurer.processes.proc import binary_of, stat_of
from measurer.processes.tree import Members

_INTERVAL = 0.02


class Polling:
    """Remembers which file each process ran at the last look. interval: seconds between two looks."""

    def __init__(self, members: Members, binaries: Binaries) -> None:
        self._members, self._binaries = members, binaries
        self._running: dict[int, tuple[int, int]] = {}
        self.interval = _INTERVAL

    def first_look(self) -> None:
        """What runs already is no execution."""
        for _ in self.look():
            pass

    def look(self) -> Iterator[tuple[int, Binary]]:
        """Processes that run another file than before, or than their parent when they are new."""
        self._members.refresh_quickly()
        before, self._running = self._running, {}
        for pid in self._members.all():
            file = _file(pid)
            if file is None:
                continue
            self._running[pid] = file
            if file != before.get(pid, before.get(_parent(pid)) if pid not in before else None):
                binary = binary_of(pid, self._binaries)
                if binary is not None:
                    yield pid, binary


def _file(pid: int) -> tuple[int, int] | None:
    try:
        status = os.stat(f"/proc/{pid}/exe")  # noqa: PTH116 - fifty times a second
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _parent(pid: int) -> int:
    stat = stat_of(pid)
    return stat.parent if stat is not None else 0
