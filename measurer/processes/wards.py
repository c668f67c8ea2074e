"""Who is attached to the processes that must not be reached: the sidecar, ourselves, Envoy."""

from __future__ import annotations

from collections.abc import Callable

from attestation.facts import Actor, ProcessAspect, ProcessFact
from measurer.clock import boottime
from measurer.processes.proc import executable_of, tracer_of
from measurer.scope import alive


class Wards:
    """A tracer reads their keys and stops them at will. tell: called once for each that attaches. guard: has the kernel
    tell of a process by its pidfd, where it can.
    """

    def __init__(self, tell: Callable[[ProcessFact], None], guard: Callable[[int], None]) -> None:
        self._tell, self._guard = tell, guard
        self._pidfds: dict[int, int] = {}
        self._tracers: dict[int, int] = {}

    def protect(self, processes: dict[int, int]) -> None:
        """These from now on: pid -> pidfd, which stay their owners'. Looks at once."""
        self._pidfds = dict(processes)
        self._tracers = {pid: tracer for pid, tracer in self._tracers.items() if pid in processes}
        for pidfd in processes.values():
            self._guard(pidfd)
        self.look()

    def look(self) -> None:
        """For kernels that tell no events, and for who attached before there was anybody to hear of it."""
        for pid in self._pidfds:
            tracer = tracer_of(pid)
            if tracer is not None:
                self.attached(pid, tracer)

    def attached(self, pid: int, tracer: int) -> None:
        """The kernel names this tracer of this pid; 0 for none. Of other processes nothing is told."""
        pidfd = self._pidfds.get(pid)
        if pidfd is None or not alive(pidfd):
            return
        before, self._tracers[pid] = self._tracers.get(pid, 0), tracer
        if tracer not in (0, before):
            after = f"{tracer} {executable_of(tracer)}".rstrip()
            self._tell(ProcessFact(boottime(), Actor(pid, executable_of(pid)), ProcessAspect.TRACER, "0", after))
