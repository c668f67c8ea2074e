"""Changes of what a running process may do, and of who watches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from attestation.facts import Actor, ProcessAspect, ProcessFact
from measurer.clock import boottime
from measurer.processes.held import Held
from measurer.processes.proc import Rights, executable_of, thread_rights


class Drift:
    """The rights of each process when it was looked at last. tell: called with every difference."""

    def __init__(self, tell: Callable[[ProcessFact], None]) -> None:
        self._tell = tell
        self._known: dict[Held, Rights] = {}

    def look(self, process: Held) -> None:
        """Compare with the last look at the same process; the first look only remembers."""
        rights = process.rights()
        if rights is not None:
            self.compare(process, rights)

    def look_at_thread(self, process: Held, thread: int) -> None:
        """The kernel knows users and capabilities by thread; what is remembered is what the process's first one has."""
        known, rights = self._known.get(process), process.read(lambda folder: thread_rights(folder, thread))
        if known is None or rights is None:
            return
        alike = replace(known, uids=rights.uids, gids=rights.gids, capabilities=rights.capabilities)
        for aspect, before, after in differences(known, alike):
            self._say(process, aspect, before, after)

    def forked(self, parent: Held, child: Held) -> None:
        """A child begins with what its parent is known to be: what it has become by the first look is a change."""
        rights = self._known.get(parent)
        if rights is not None:
            self._known[child] = rights.watched_by(0)

    def compare(self, process: Held, rights: Rights) -> None:
        known = self._known.get(process)
        self._known[process] = rights
        if known is None:
            if rights.tracer:
                self._say_traced(process, rights.tracer)
            return
        for aspect, before, after in differences(known, rights) if rights is not known else ():
            self._say(process, aspect, before, after)

    def traced(self, process: Held, tracer: int) -> None:
        """Somebody attached to a process."""
        rights = self._known.get(process)
        if rights is not None and rights.tracer == tracer:
            return
        if rights is not None:
            self._known[process] = rights.watched_by(tracer)
        self._say_traced(process, tracer)

    def left(self, process: Held) -> None:
        """A process lives on outside of the measured cgroup."""
        self._say(process, ProcessAspect.SCOPE, "inside", "outside")

    def unmeasured(self, process: Held, why: str) -> None:
        """It runs, and cannot be read. Told once."""
        if process.untold:
            process.untold = False
            self._say(process, ProcessAspect.UNMEASURED, "no", f"yes: {why}")

    def forget(self, process: Held) -> None:
        self._known.pop(process, None)

    def keep_only(self, processes: set[Held]) -> None:
        for each in [each for each in self._known if each not in processes]:
            del self._known[each]

    def _say_traced(self, process: Held, tracer: int) -> None:
        self._say(process, ProcessAspect.TRACER, "0", f"{tracer} {executable_of(tracer)}".rstrip())

    def _say(self, process: Held, aspect: ProcessAspect, before: str, after: str) -> None:
        actor, inside = Actor(process.pid, process.executable()), process.pid_inside()
        self._tell(ProcessFact(boottime(), actor, aspect, before, after, inside))


def differences(before: Rights, after: Rights) -> Iterator[tuple[ProcessAspect, str, str]]:
    """Each aspect that differs, with both values as text."""
    pairs = (
        (ProcessAspect.CAPABILITIES, before.capabilities, after.capabilities),
        (ProcessAspect.SECCOMP, str(before.seccomp), str(after.seccomp)),
        (ProcessAspect.NO_NEW_PRIVILEGES, str(before.no_new_privileges).lower(), str(after.no_new_privileges).lower()),
        (ProcessAspect.NAMESPACES, " ".join(before.namespaces), " ".join(after.namespaces)),
        (ProcessAspect.USER, _ids(before), _ids(after)),
        (ProcessAspect.LABEL, before.label, after.label),
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
