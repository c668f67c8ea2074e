"""Which process may fetch the key: the workload itself never, whatever user it became."""

from __future__ import annotations

from pathlib import Path

_MOST_GENERATIONS = 128


def descends_from(pid: int, ancestor: int) -> bool:
    """Is this process the ancestor, or below it? A process that ended meanwhile counts as below: nobody vouches."""
    for _ in range(_MOST_GENERATIONS):
        if pid == ancestor:
            return True
        if pid <= 1:
            return False
        found = _parent(pid)
        if found is None:
            return True
        pid = found
    return True


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold anything; the fields after its last ) are numbers (proc_pid_stat(5)).
    return int(stat.rpartition(")")[2].split()[1])
