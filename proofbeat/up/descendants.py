"""Who descends from a process, as the process table has it now."""

from __future__ import annotations

from collections import defaultdict

from measurer.processes.proc import listing, stat_of


def descendants(pid: int) -> list[int]:
    """Its children, theirs, and so on; parents before children."""
    children: dict[int, list[int]] = defaultdict(list)
    for name in listing("/proc"):
        if name.isdigit() and (stat := stat_of(int(name))):
            children[stat.parent].append(int(name))
    found = list(children[pid])
    for each in found:
        found += children[each]
    return found
