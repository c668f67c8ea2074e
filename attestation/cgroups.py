"""Control group memberships, as /proc/PID/cgroup writes them (cgroups(7))."""

from __future__ import annotations

import os


def memberships(text: bytes) -> dict[int, str]:
    """Hierarchy number -> path, 0 for version 2.

    Bytes, split at line feeds alone: the kernel keeps nothing else out of a group's name, and a workload that names
    its group with any of the other characters which text takes for an end of line must not write a second line.
    """
    found = {}
    for line in text.split(b"\n"):
        number, colon, rest = line.partition(b":")
        _, second, path = rest.partition(b":")
        if colon and second and number.isdigit():
            found[int(number)] = os.fsdecode(path)
    return found
