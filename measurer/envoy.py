"""The guarded Envoy: held by pidfd, cut off from its peers, killed."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable

from attestation.addresses import parse
from attestation.coverage import Cutting
from attestation.errors import InvalidInput
from measurer import deadline
from measurer.cutting import Cut, Cutter
from measurer.kernel import has_ended
from measurer.scope import pid_of, read_at
from measurer.sockdiag import remotes

_NOTHING, _ALIVE = Cut(0, 0, 0), Cut(0, 1, 0)
_DIES_WITHIN_MS = 500
_SWEEPS_WITHIN = 1.0
"""Seconds after which a sweep of the other thread counts as one that stands still."""
_MEND = "Send Guard with a pidfd of the running Envoy."


Permits = Callable[[bytes], None]
"""Raises InvalidInput for a process of this /proc/PID/cgroup text."""


class Envoy:
    """One process. Its methods may be called from both threads; sweeps run one after the other.

    called: its pid as the sidecar knows it, which may live in another pid namespace. Raises InvalidInput when pidfd and
    pid are not the same living process, or where it is none of those that the sidecar may have guarded.
    """

    def __init__(self, pid: int, pidfd: int, called: int, permits: Permits | None = None) -> None:
        try:
            self._proc = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidInput("this Envoy does not run", where=f"process {pid}", mend=_MEND) from error
        if pid_of(pidfd) != pid or has_ended(pidfd):
            os.close(self._proc)
            raise InvalidInput("the pidfd is not that process", where=f"process {pid}", mend=_MEND)
        self.pid, self.pidfd, self.called = pid, pidfd, called
        if permits is not None:
            self._check(permits)
        self._lock = threading.Lock()
        self._cutter = Cutter(self._proc, pidfd)
        self._closed = False
        self._deadline, self.outlives = deadline.of_process(pid, self._proc)
        """outlives: as Guarded has it."""

    def _check(self, permits: Permits) -> None:
        try:
            permits(read_at(self._proc, "cgroup"))
        except OSError as error:
            os.close(self._proc)
            raise InvalidInput("this Envoy does not run", where=f"process {self.called}", mend=_MEND) from error
        except InvalidInput:
            os.close(self._proc)
            raise

    @property
    def named(self) -> tuple[int, int]:
        """Pid and pidfd."""
        return self.pid, self.pidfd

    @property
    def cutting(self) -> Cutting:
        """The strongest way we have, tried and not guessed."""
        if self._cutter.may_destroy:
            return Cutting.DESTROY
        return Cutting.KILL if self._may_kill() else Cutting.CAPPED

    @property
    def refusal(self) -> str:
        """Why sockets cannot be destroyed; empty when they can."""
        return os.strerror(self._cutter.refusal) if self._cutter.refusal else ""

    def put_off(self, seconds: float) -> None:
        """Its traffic goes on for so long from now, whatever becomes of us. Raises OSError."""
        if self._deadline is not None:
            self._deadline.put_off(seconds)

    def sweep(self, *, verify: bool = True) -> Cut:
        """End its open connections. verify: and look whether they have ended.

        Of one that has ended the kernel shows nothing any more; what earlier sweeps saw of it is looked for.
        """
        with self._lock:
            if self._closed:
                return _NOTHING
            return self._cutter.sweep(goes_on=has_ended(self.pidfd)) if verify else self._cutter.strike()

    def sever(self, addresses: tuple[str, ...]) -> Cut:
        """End what it has open to these remote addresses. Raises InvalidInput for one that is none."""
        ends = frozenset(end for each in addresses for end in remotes(*parse(each)))
        with self._lock:
            return _NOTHING if self._closed else self._cutter.sever(ends)

    def cut_off(self) -> Cut:
        """End its connections, then the process, then what the process may have opened in between.

        A sweep that stands still, as under a tracer, is not waited for: then the process ends first.
        """
        waited = self._lock.acquire(timeout=_SWEEPS_WITHIN)
        if not waited:
            return _NOTHING if self.end() else _ALIVE
        try:
            if self._closed:
                return _NOTHING
            first = self._cutter.sweep()
            self._kill()
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            poll.poll(_DIES_WITHIN_MS if self._may_kill() else 0)
            last = self._cutter.sweep(goes_on=True)
            return Cut(first.destroyed + last.destroyed, last.left, first.passes + last.passes)
        finally:
            self._lock.release()

    def end(self) -> bool:
        """The process at once, whatever the other thread is doing. False where we may not."""
        return self._closed or self._kill()

    def kill(self) -> Cut:
        """The process at once; the kernel closes its connections. One that we may not kill keeps them."""
        with self._lock:
            return _NOTHING if self._closed or self._kill() else _ALIVE

    def settle(self) -> None:
        """What bounds its traffic is not needed once it has ended: its successor may live in the same group."""
        if self._deadline is not None and has_ended(self.pidfd):
            self._deadline.lift()

    def close(self) -> None:
        """Let go of it. What bounds the traffic of one that lives on stays, and is put off no more."""
        with self._lock:
            self._closed = True
            self.settle()
            if self._deadline is not None:
                self._deadline.leave()
            self._cutter.close()
            os.close(self._proc)
            os.close(self.pidfd)

    def _kill(self) -> bool:
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return True

    def _may_kill(self) -> bool:
        try:
            signal.pidfd_send_signal(self.pidfd, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return True
