"""What is done for one sidecar: one scope, three collectors, one guardian, until it ends."""

from __future__ import annotations

import os
import select
import socket
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from attestation import channel as words
from attestation.channel import (
    Beat,
    Contain,
    Covered,
    Fault,
    Gate,
    Guard,
    Guarded,
    KillEnvoy,
    Listener,
    Measure,
    Message,
    Owned,
    Pinned,
    Scope,
    Sever,
    Severed,
    Sweep,
    Swept,
    Whose,
)
from attestation.coverage import Coverage, Cutting, Isolation
from attestation.errors import InvalidInput, ProofbeatError
from attestation.facts import Actor, CollectorFact, CollectorState, InstanceFact, MountFact
from attestation.layers import Layer
from attestation.means import Trial
from measurer import coverage, isolation, kernel, mounts, scope, trials
from measurer.calls.collector import CallsCollector
from measurer.channel import Channel, Hangup
from measurer.clock import boottime
from measurer.connections import Connection
from measurer.containing import Containing
from measurer.cutting import Cut
from measurer.deadman import Deadman
from measurer.egress import Egress
from measurer.envoy import Envoy, Permits
from measurer.fence import Fence
from measurer.files.collector import Files
from measurer.forensics import Forensics
from measurer.guardian import Duty, Guardian
from measurer.loop import Loop, Reactor
from measurer.memory.collector import Memory
from measurer.mounts import Mounts
from measurer.processes.collector import Processes
from measurer.processes.held import allow_descriptors
from measurer.processes.sources import Sources
from measurer.programs import Joined
from measurer.proxy import ProxyLayer
from measurer.seccomp.arrivals import Arrivals
from measurer.seccomp.notified import Notified
from measurer.sockdiag import can_destroy

GUARDIAN = "guardian"
MOST_FILES = 1_000_000
"""Entries of one workload's manifest, as many as a verifier takes."""
MOST_FILES_BESIDE_OTHERS = 200_000
"""The same for a measurer of several: some 60 MB, which one of them may cost the others."""


class Measurer:
    """Built once the scope is known: by `run`, or for a connection to a node's measurer (node.py)."""

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        sources: Sources,
        deadman: Deadman,
        wanted: Scope,
        pinned: scope.Pinned,
        permits: Permits | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        """permits: whom the sidecar may have guarded. None: the measurer is the sidecar's own. arrivals: of listeners
        that container runtimes hand over.
        """
        self._loop, self._channel, self._deadman = loop, channel, deadman
        self._pinned, self._permits = pinned, permits
        self._envoy: Envoy | None = None
        self._told: Coverage | None = None
        self._tried: tuple[Trial, ...] = ()
        self._can_destroy = can_destroy() == 0
        self._root = pinned.root
        self._processes = Processes(loop, channel, sources, pinned, self.cover, shared=permits is not None)
        self._egress = Egress(loop, channel, self._processes.network, lambda: self._processes.held, self.cover)
        self._fence = Fence(
            loop,
            channel,
            sources.fencing,
            pinned,
            lambda: self._processes.held,
            self._processes.executions.names.who,
            self._processes.network,
            self._wards,
            self.cover,
        )
        self._memory = Memory(loop, channel, self._processes, pinned.root, self.cover)
        self._calls = CallsCollector(loop, channel, sources.programs, self)
        self._arrivals = arrivals
        self._notified = Notified(
            loop,
            channel,
            self._calls,
            self._processes.executions.names.who,
            self.cover,
        )
        self._proxy = ProxyLayer(loop, channel, self.cover)
        forensics = Forensics(loop, channel, pinned.pid)
        self._containing = Containing(loop, channel, pinned, self._processes.found, self._wards, forensics, self._fence)
        self._scope, self._files = wanted, self._collect_files(wanted)
        with ExitStack() as held:
            held.callback(lambda: self._files.close())
            self._mounts = Mounts(self._open_mountinfo(), mounts.namespace_of(pinned.proc))
            held.callback(self._mounts.close)
            self._own = (os.getpid(), os.pidfd_open(os.getpid()))
            held.callback(os.close, self._own[1])
            held.callback(self._proxy.close)
            held.callback(self._containing.close)
            held.callback(self._fence.end)
            held.callback(self._egress.close)
            held.callback(self._processes.close)
            held.callback(self._calls.close)
            held.callback(self._notified.close)
            if arrivals is not None:
                held.callback(arrivals.leave, pinned.pidfd)
            self._held = held.pop_all()

    def start(self) -> None:
        """Answer the scope, begin to watch, and take the first measurement of both layers unasked."""
        pinned = self._pinned
        self._processes.start(self._mounts)
        self._egress.rule(self._scope.egress, self._scope.egress_every)
        self._fence.rule(self._scope.fence, self._scope.egress)
        self._tried = trials.tried(pinned, self._processes.executions.tried)
        self._protect()
        self._channel.send(Pinned(pinned.instance, pinned.boot_id, pinned.started))
        self._rule_calls(self._scope)
        if self._arrivals is not None:
            self._arrivals.claim(pinned.pidfd, self._loop, self._take_arrived)
        self.cover()
        self._containing.announce()
        self._loop.watch(pinned.pidfd, self._workload_ended)
        self._loop.watch(self._mounts.mountinfo, self._mounts_changed, select.EPOLLPRI)
        if self._mounts.descriptor >= 0:
            self._loop.watch(self._mounts.descriptor, self._mounts_changed)
        self._loop.watch(self._deadman.reported, self._guardian_fired)
        self._processes.measure(0.0, full=True)
        self._files.measure(0.0, full=True)
        self._memory.rule(self._scope.memory)

    def close(self) -> None:
        """Let go of all that was held for this sidecar. Its Envoy is the guardian's to close."""
        self._held.close()

    # What the kernel's programs see, and others have to know.

    def part(self) -> Joined:
        """The workload's in the kernel's programs. Raises OSError where there are none."""
        return self._processes.joined()

    def who(self, pid: int) -> str:
        """The executable of a pid that may be gone already; empty where nobody knows."""
        return self._processes.executions.names.who(pid)

    def connects(self, to: Connection, at: float, process: Actor) -> None:
        """A TCP connection begins."""
        self._egress.begins(to, at, process, 0)

    def written(self, pid: int) -> None:
        """Somebody wrote into its memory."""
        self._memory.suspect(pid)

    def _collect_files(self, wanted: Scope) -> Files:
        for path in wanted.include:
            scope.check_include(self._root, path)
        who = self._processes.executions.names.who
        files = Files(
            self._loop,
            self._channel,
            self._root,
            wanted.include,
            wanted.volatile,
            who,
            lambda: self._processes.held,
            self.cover,
            capabilities=wanted.capabilities,
            most=MOST_FILES if self._permits is None else MOST_FILES_BESIDE_OTHERS,
        )
        files.rule(immutable=wanted.immutable, reread=wanted.reread)
        return files

    def _rescope(self, wanted: Scope) -> None:
        """Policy came, or changed: other files of the same workload, another dead-man time."""
        before, self._scope = self._scope, wanted
        if (wanted.pid, wanted.cgroup) != (before.pid, before.cgroup):
            raise InvalidInput("another workload", where="Scope", mend="Start a measurer for each workload.")
        self._deadman.allow(wanted.deadman)
        self._files.rule(immutable=wanted.immutable, reread=wanted.reread)
        self._egress.rule(wanted.egress, wanted.egress_every)
        if (wanted.fence, wanted.egress) != (before.fence, before.egress):
            self._fence.rule(wanted.fence, wanted.egress)
        if wanted.calls != before.calls:
            self._rule_calls(wanted)
        self._memory.rule(wanted.memory)
        self.cover()
        if _to_read(wanted) != _to_read(before):
            self._collect_again()

    def _rule_calls(self, wanted: Scope) -> None:
        self._calls.rule(wanted.calls)
        self._notified.rule(wanted=wanted.calls is not None and wanted.calls.notified)

    def _collect_again(self) -> None:
        self._files.close()
        self._files = self._collect_files(self._scope)
        self._files.measure(0.0, full=True)
        self.cover()

    def cover(self) -> None:
        """Tell the coverage if it is not what was told last."""
        now = coverage.coverage(
            (
                self._files.coverage,
                *self._processes.coverage,
                *self._memory.coverage,
                *self._egress.coverage,
                *self._fence.coverage,
                *self._proxy.coverage,
                *self._calls.coverage,
                *self._notified.coverage,
            ),
            self._cutting(),
            self._deadman.duty is Duty.GUARDING,
            self._isolation(),
        )
        if now != self._told:
            self._told = now
            self._protect()  # the gate may have another process
            self._channel.send(Covered(now, self._tried))

    def _protect(self) -> None:
        self._processes.wards.protect(self._wards())

    def _wards(self) -> dict[int, int]:
        """Pids and pidfds of those that must not be reached."""
        others = (self._envoy.named if self._envoy is not None else None, self._processes.gate.named)
        return dict([self._own, self._deadman.sidecar, *(each for each in others if each is not None)])

    def _isolation(self) -> Isolation:
        envoy = self._envoy.named if self._envoy is not None else None
        gate = self._processes.gate.named
        ours = (self._own, self._deadman.sidecar, *((gate,) if gate is not None else ()))
        return isolation.look(ours, envoy, self._processes.held)

    def handle(self, message: Message, descriptors: list[int]) -> None:
        """One message of the sidecar. Raises InvalidInput for one that does not belong here."""
        if not isinstance(message, Guard | Gate | Listener):
            for each in descriptors:
                os.close(each)
        match message:
            case Beat():
                self._deadman.beat()
                self._channel.send(message)
            case Scope():
                self._rescope(message)
            case Measure(layers, not_before, full):
                self._measure(layers, not_before, full)
            case Guard(pid):
                self._guard(pid, descriptors)
            case Sweep(number, verify):
                self._answer(number, self._envoy.sweep(verify=verify) if self._envoy else Cut(0, 0, 0))
            case Sever(number, addresses):
                cut = self._envoy.sever(addresses) if self._envoy else Cut(0, 0, 0)
                self._channel.send(Severed(number, cut.destroyed, cut.left))
            case Contain():
                self._containing.order(message)
            case Gate(stands):
                self._stand(stands, descriptors)
            case Listener():
                self._listen(descriptors)
            case Whose(number, pid, by):
                self._channel.send(Owned(number, *self._processes.whose(pid, by)))
            case KillEnvoy(number):
                self._answer(number, self._envoy.kill() if self._envoy else Cut(0, 0, 0))
            case _:
                raise InvalidInput(f"an unexpected {type(message).__name__}", where="measurer channel")

    def _measure(self, layers: tuple[Layer, ...], not_before: float, full: bool) -> None:
        if Layer.FILES in layers:
            self._files.measure(not_before, full)
        if Layer.PROCESSES in layers:
            self._processes.measure(not_before, full)
            self.cover()  # isolation follows what the workload's processes may do by now
        if Layer.MEMORY in layers:
            self._memory.measure(not_before, full)
        if Layer.PROXY in layers:
            self._proxy.measure(not_before, full)
        if Layer.SYSCALLS in layers:
            self._calls.measure(not_before, full)

    def _guard(self, pid: int, descriptors: list[int]) -> None:
        if len(descriptors) != 1:
            for each in descriptors:
                os.close(each)
            raise InvalidInput("Guard came without a pidfd", where="measurer channel", mend="Send one beside it.")
        known = scope.pid_of(descriptors[0])
        if self._processes.owns(known):
            os.close(descriptors[0])
            self._channel.send(Guarded(pid, workload=True))
            return
        was = self._deadman.duty
        try:
            envoy = Envoy(known, descriptors[0], pid, self._permits)
        except InvalidInput as error:  # it has died since: the sidecar learns that nothing new is guarded
            os.close(descriptors[0])
            self._channel.send(CollectorFact(boottime(), GUARDIAN, CollectorState.DEAD, error.sentence))
            return
        self._proxy.guard(envoy)
        self._deadman.guard(envoy)
        self._envoy = envoy
        self._channel.send(Guarded(pid, workload=False, outlives=envoy.outlives))
        self._protect()
        if was is Duty.FIRED:
            self._channel.send(CollectorFact(boottime(), GUARDIAN, CollectorState.RUNNING, "guards again"))
        self.cover()

    def _stand(self, stands: bool, descriptors: list[int]) -> None:
        if len(descriptors) != stands:
            for each in descriptors:
                os.close(each)
            raise InvalidInput("Gate came without its list", where="measurer channel", mend="Send it beside it.")
        self._processes.gate.order(descriptors[0] if stands else None)

    def _listen(self, descriptors: list[int]) -> None:
        if len(descriptors) != 1:
            for each in descriptors:
                os.close(each)
            raise InvalidInput("Listener came without one", where="measurer channel", mend="Send it beside it.")
        if not self._notified.take(descriptors[0]):
            raise InvalidInput("too many listeners", where="measurer channel", mend="One a workload is enough.")

    def _take_arrived(self, descriptor: int, first: bool) -> None:
        arrivals, pidfd = self._arrivals, self._pinned.pidfd
        if arrivals is not None:
            self._notified.take(
                descriptor, first=first, given_up=lambda each: arrivals.give_back(pidfd, each, first=first)
            )

    def _answer(self, number: int, cut: Cut) -> None:
        self._channel.send(Swept(number, cut.destroyed, cut.left, cut.passes, boottime()))

    def _cutting(self) -> Cutting:
        if self._envoy is not None:
            return self._envoy.cutting
        return Cutting.DESTROY if self._can_destroy else Cutting.CAPPED

    def _workload_ended(self) -> None:
        self._loop.forget(self._pinned.pidfd)
        fact = InstanceFact(boottime(), "the workload's first process ended")
        self._containing.afterwards(lambda: self._channel.send(fact))

    def _mounts_changed(self) -> None:
        at, (changes, passed) = boottime(), self._mounts.changes()
        for each in changes:
            mount = each.mount
            self._channel.send(
                MountFact(at, os.fsdecode(mount.point), each.mounted, mount.kind.decode("ascii", "replace"))
            )
        for _ in range(passed if self._mounts.apart else 0):
            self._channel.send(MountFact(at, "", mounted=False))
        followed = self._follow_root()
        self._processes.executions.mounts_changed(self._root)
        if not followed:
            self._files.measure(at, full=False)

    def _follow_root(self) -> bool:
        """Has the workload's root become another one (pivot_root(2))? Then what it sees now is what is measured."""
        try:
            root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._pinned.proc)
        except OSError:
            return False  # it ended
        if os.path.sameopenfile(root, self._root):
            os.close(root)
            return False
        self._root = root
        self._memory.of_root(root)
        self._loop.forget(self._mounts.mountinfo)
        self._mounts.renew(self._open_mountinfo())
        self._loop.watch(self._mounts.mountinfo, self._mounts_changed, select.EPOLLPRI)
        self._channel.send(MountFact(boottime(), "/", mounted=True))
        self._collect_again()
        return True

    def _open_mountinfo(self) -> int:
        return os.open("mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._pinned.proc)

    def _guardian_fired(self) -> None:
        os.eventfd_read(self._deadman.reported)
        while self._deadman.reports:
            fired = self._deadman.reports.popleft()
            detail = f"no beat in time: {fired.cut.destroyed} connections destroyed, {fired.cut.left} left"
            state = CollectorState.DEAD
            self._channel.send(CollectorFact(boottime(), GUARDIAN, state, f"{detail}. {fired.error}".rstrip(". ")))
        self.cover()


def _to_read(scope: Scope) -> Scope:
    """What of it decides what is read of files."""
    return replace(
        scope,
        deadman=0.0,
        immutable=False,
        reread=0.0,
        egress=None,
        egress_every=0.0,
        fence=words.Fence.NONE,
        calls=None,
        memory=0.0,
    )


def run(descriptor: int) -> int:
    """Serve one sidecar over an inherited SOCK_SEQPACKET descriptor. Returns the exit status.

    However it ends, a guarded Envoy is cut off first: a measurer that crashes must not leave traffic open.
    """
    kernel.forbid_tracing()
    allow_descriptors()
    reactor = Reactor()
    loop = Loop(reactor)
    channel = Channel(descriptor, lambda: loop.change(descriptor, select.EPOLLIN | select.EPOLLOUT))
    deadman: Deadman | None = None
    status = 0
    try:
        wanted, pidfd = _scope(channel)
        deadman = Deadman(Guardian(wanted.deadman), _sidecar(channel), os._exit)
        deadman.start()
        measurer = Measurer(loop, channel, Sources(loop), deadman, wanted, scope.pin(wanted, pidfd))
        loop.watch(descriptor, lambda: _read(loop, channel, measurer))
        measurer.start()
        reactor.run()
    except Hangup:
        pass
    except ProofbeatError as error:
        status = tell_fault(channel, error)
    except Exception as error:  # noqa: BLE001 - the process edge: whatever broke, the sidecar is told and traffic ends
        status = tell_fault(channel, error)
    if deadman is not None:
        deadman.hang_up(status)
        deadman.join()
    return status


def _read(loop: Loop, channel: Channel, measurer: Measurer) -> None:
    if channel.waits and channel.flush():
        loop.change(channel.descriptor, select.EPOLLIN)
    while (received := channel.receive()) is not None:
        measurer.handle(*received)


def _scope(channel: Channel) -> tuple[Scope, int | None]:
    """The first message. Raises Hangup, InvalidInput."""
    poll = select.poll()
    poll.register(channel.descriptor, select.POLLIN)
    while (received := channel.receive()) is None:
        poll.poll()
    return first_word(*received)


def first_word(message: Message, descriptors: list[int]) -> tuple[Scope, int | None]:
    """What is to be measured, and a pidfd of it where one came along. Raises InvalidInput."""
    for each in descriptors[1:]:
        os.close(each)
    if not isinstance(message, Scope):
        for each in descriptors[:1]:
            os.close(each)
        raise InvalidInput(f"{type(message).__name__} came before Scope", where="measurer channel")
    return message, descriptors[0] if descriptors else None


def _sidecar(channel: Channel) -> int:
    """A pidfd of the process at the other end. Raises Hangup when it is gone."""
    try:
        return channel.socket.getsockopt(socket.SOL_SOCKET, kernel.SO_PEERPIDFD)
    except OSError:
        parent = os.getppid()
    try:
        pidfd = os.pidfd_open(parent)
    except ProcessLookupError as error:
        raise Hangup from error
    if os.getppid() != parent:  # it died, and the pidfd may be of whoever came after
        raise Hangup
    return pidfd


def tell_fault(channel: Channel, error: Exception) -> int:
    """The last word to a sidecar. Returns the exit status."""
    fault = Fault(f"{type(error).__name__}: {error}", _place(error), "Report this as a defect.")
    if isinstance(error, ProofbeatError):
        fault = Fault(error.what, error.where, error.mend)
    with suppress(Hangup, ProofbeatError, OSError):
        channel.send(fault)
    return 1


def _place(error: BaseException) -> str:
    """File and line that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
