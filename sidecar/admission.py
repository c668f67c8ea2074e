"""Which process may fetch the key: an allowed executable outside the workload, whatever user the workload became."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from attestation import cgroups
from attestation.digests import Digest

_MOST_GENERATIONS = 128


class KeyRules:
    """The sidecar's own rules of admission, beside user and single client.

    cgroup: the workload's, empty where it is a process tree. executables: digests that may connect; empty for any.
    setting: where those are stated.
    """

    def __init__(
        self,
        workload: int,
        cgroup: str,
        executables: frozenset[Digest],
        setting: str = "delivery.allow.executables",
    ) -> None:
        self._workload, self._setting = workload, setting
        self._executables = executables
        self._groups = {
            hierarchy: path
            for hierarchy, path in _memberships(workload).items()
            if cgroup and path != "/" and cgroup.rstrip("/").endswith(path)
        }
        self._known: tuple[tuple[int, ...], Digest] | None = None

    def of_workload(self, pid: int) -> bool:
        """Is it the workload? By descent, or by cgroup. A process that is gone counts as such: nobody vouches."""
        if descends_from(pid, self._workload):
            return True
        found = _memberships(pid)
        return any(_below(found.get(hierarchy, path), path) for hierarchy, path in self._groups.items())

    def refusal(self, pid: int) -> str | None:
        """Why this process may not have the key; None when it may."""
        if self.of_workload(pid):
            return f"process {pid} belongs to the workload"
        if self._executables and (digest := self._digest(pid)) not in self._executables:
            return f"process {pid} runs sha256:{digest or 'unreadable'}, which {self._setting} does not name"
        return None

    def _digest(self, pid: int) -> Digest:
        """Of the executable that runs, not of the path it came from; hashed again only when the file is another."""
        try:
            with Path(f"/proc/{pid}/exe").open("rb") as file:
                state = os.fstat(file.fileno())
                identity = (state.st_dev, state.st_ino, state.st_size, state.st_ctime_ns)
                if self._known is None or self._known[0] != identity:
                    self._known = (identity, hashlib.file_digest(file, "sha256").hexdigest())
        except OSError:
            return ""
        return self._known[1]


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


def _below(path: str, group: str) -> bool:
    return path == group or path.startswith(group.rstrip("/") + "/")


def _memberships(pid: int) -> dict[int, str]:
    """Hierarchy number -> path; empty when the process is gone."""
    try:
        return cgroups.memberships(Path(f"/proc/{pid}/cgroup").read_bytes())
    except OSError:
        return {}


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold anything; the fields after its last ) are numbers (proc_pid_stat(5)).
    return int(stat.rpartition(")")[2].split()[1])
