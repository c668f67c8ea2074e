"""Changes of what a running process may do, and of who watches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attestation.facts import Actor, ProcessAspect, ProcessFact
from measurer.clock import boottime
from measurer.processes.proc import Look, Rights, executable_of, read_rights


class Drift:
    """The rights of each process when it was looked at last. tell: called with every difference."""

    def __init__(self, tell: Callable[[ProcessFact], None]) -> None:
        self._tell = tell
        self._known: dict[int, tuple[int, Rights]] = {}

    def look(self, pid: int) -> None:
        """Compare with the last look at the same process; the first look only remembers."""
        read = read_rights(pid)
        if read is not None:
            self.compare(pid, *read)

    def seen(self, look: Look) -> None:
        """The same for a process that has been read already."""
        self.compare(look.pid, look.start_ticks, look.rights)

    def compare(self, pid: int, start_ticks: int, rights: Rights) -> None:
        known = self._known.get(pid)
        self._known[pid] = (start_ticks, rights)
        if known is None or known[0] != start_ticks:
            if rights.tracer:
                self.traced(pid, rights.tracer)
            return
        for aspect, before, after in differences(known[1], rights):
            self._tell(ProcessFact(boottime(), Actor(pid, executable_of(pid)), aspect, before, after))

    def traced(self, pid: int, tracer: int) -> None:
        """Somebody attached to a process."""
        start_ticks, rights = self._known.get(pid, (0, None))
        if rights is not None and rights.tracer == tracer:
            return
        if rights is not None:
            self._known[pid] = (start_ticks, rights.watched_by(tracer))
        after = f"{tracer} {executable_of(tracer)}".rstrip()
        self._tell(ProcessFact(boottime(), Actor(pid, executable_of(pid)), ProcessAspect.TRACER, "0", after))

    def left(self, pid: int) -> None:
        """A process lives on outside of the measured cgroup."""
        self._known.pop(pid, None)
        fact = ProcessFact(boottime(), Actor(pid, executable_of(pid)), ProcessAspect.SCOPE, "inside", "outside")
        self._tell(fact)

    def forget(self, pid: int) -> None:
        self._known.pop(pid, None)

    def keep_only(self, pids: set[int]) -> None:
        for pid in [pid for pid in self._known if pid not in pids]:
            del self._known[pid]


def differences(before: Rights, after: Rights) -> Iterator[tuple[ProcessAspect, str, str]]:
    """Each aspect that differs, with both values as text."""
    pairs = (
        (ProcessAspect.CAPABILITIES, before.capabilities, after.capabilities),
        (ProcessAspect.SECCOMP, str(before.seccomp), str(after.seccomp)),
        (ProcessAspect.NO_NEW_PRIVILEGES, str(before.no_new_privileges).lower(), str(after.no_new_privileges).lower()),
        (ProcessAspect.NAMESPACES, " ".join(before.namespaces), " ".join(after.namespaces)),
        (ProcessAspect.USER, _ids(before), _ids(after)),
        (ProcessAspect.TRACER, str(before.tracer), str(after.tracer)),
    )
    for aspect, earlier, later in pairs:
        if earlier != later:
            yield aspect, earlier, later


def _ids(rights: Rights) -> str:
    """The effective ids first: they decide what the process may do now."""
    real, effective, saved, _ = zip(rights.uids, rights.gids, strict=True)
    return f"{_pair(effective)} real {_pair(real)} saved {_pair(saved)}"


def _pair(ids: tuple[int, int]) -> str:
    return f"{ids[0]}:{ids[1]}"
