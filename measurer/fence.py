"""The fence around one workload: what it connects to that policy does not allow is refused, and told by whom.

While it is shut nothing passes but what stays on this machine. It stands for as long as this process lives: the kernel
takes it away with the descriptors that hold it. What is shut stays so in spite of that where the workload has a control
group of its own: there it is attached for good, until the next measurer, or the end of the group, takes it away.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address, IPv6Address
from math import inf

from attestation.channel import Fence as Wanted
from attestation.coverage import FENCE, CollectorCoverage, Mechanism
from attestation.destinations import TCP, UDP, parse
from attestation.facts import Actor, CollectorFact, CollectorState, EgressFact, Passage
from attestation.layers import Layer
from measurer.addresses import Addresses
from measurer.bpf.fence import (
    EVERYTHING,
    LOOPBACK,
    MOST_RULES,
    Kind,
    Lasting,
    Refusal,
    Rule,
    remove_left_over,
)
from measurer.channel import Channel
from measurer.clock import boottime, monotonic
from measurer.connections import Connections
from measurer.fencing import Fencing, Raised, has_own_group
from measurer.loop import Loop
from measurer.marking import Marking
from measurer.outgoing import outgoing
from measurer.processes.held import Held
from measurer.scope import Pinned

NAME = FENCE
LATENCY_MS = 5.0
LOOKS_EVERY = 0.25
"""Seconds between two looks for who came in from outside. Who is made inside is known to the kernel at once."""
AGAIN = 10.0
"""Seconds after which it is tried again where none could be put up."""
ANYWAY = 30.0
"""Seconds after which the same is told again."""
_MOST_KEPT = 1024
_MOST_PASSES = 5
_PROTOCOLS = {6: TCP, 17: UDP, 136: UDP, 262: TCP}
_SOCK_RAW = 3


class Fence:
    """Nothing stands until it is asked for. held: the workload's processes. who: names the executable of a pid that may
    be gone already. network: opens what lists the connections; raises OSError. protected: pids that no fence may be
    around. covered: our coverage changed.
    """

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        fencing: Fencing,
        pinned: Pinned,
        held: Callable[[], list[Held]],
        who: Callable[[int], str],
        network: Callable[[], Connections],
        protected: Callable[[], Iterable[int]],
        covered: Callable[[], None],
    ) -> None:
        self._loop, self._channel, self._fencing, self._pinned = loop, channel, fencing, pinned
        self._held, self._who, self._network = held, who, network
        self._protected, self._covered = protected, covered
        self._wanted = Wanted.NONE
        self._listed: tuple[Rule, ...] = ()
        self._is_shut = False
        self._raised: Raised | None = None
        self._lasting: Lasting | None = None
        self._marking = Marking(lambda _: None)
        self._addresses: Addresses | None = None
        self._own: frozenset[tuple[int, int]] = frozenset()
        self._refusal = ""
        self._left_out = self._lost = 0
        self._told: dict[tuple[int, ...], float] = {}

    @property
    def coverage(self) -> tuple[CollectorCoverage, ...]:
        if self._wanted is Wanted.NONE:
            return ()
        stands = "what is not listed is refused" if self._wanted is Wanted.LISTED else "it can be shut"
        details = [self._refusal or stands]
        if self._raised is not None and self._raised.own is not None:
            details += ["whoever leaves its control group is not held"]
        details += [f"{self._left_out} addresses of its own are not known to it"] if self._left_out else []
        running = self._raised is not None and not self._refusal
        detail = "; ".join(details)
        return (CollectorCoverage(NAME, Layer.PROCESSES, Mechanism.BPF, LATENCY_MS, running, self._lost, detail),)

    @property
    def shuts(self) -> bool:
        """It was shut, and not opened since."""
        return self._is_shut

    @property
    def refusal(self) -> str:
        """Why none stands; empty where one does, or nobody asked."""
        return self._refusal

    def rule(self, wanted: Wanted, listed: Sequence[str] | None) -> None:
        """From now on. listed: destinations that pass where that is wanted. Raises InvalidInput."""
        self._wanted, self._listed = wanted, tuple(Rule.of(parse(each)) for each in listed or ())
        self._told.clear()
        if wanted is Wanted.NONE and not self._is_shut:
            self.close()
            return
        with suppress(OSError):  # coverage says so
            self._stand()

    def shut(self) -> Generator[None, None, int]:
        """Nothing goes out any more; what did is ended. How many connections are left. Raises OSError where there is no
        fence.
        """
        self._is_shut = True
        self._stand()
        self._make_last()
        try:
            return (yield from self._sever())
        except OSError:
            return 1  # nobody can say that there is none

    def open(self) -> None:
        """What policy allows passes again."""
        self._lift()
        if not self._is_shut:
            return
        self._is_shut = False
        if self._wanted is Wanted.NONE:
            self.close()
        else:
            with suppress(OSError):
                self._stand()

    def end(self) -> None:
        """Take it away. What is shut is left as it stands, where that lasts."""
        if self._lasting is not None:
            self._lasting.leave()
            self._lasting = None
        self.close()

    def close(self) -> None:
        """Take it away, but for what lasts."""
        self._loop.cancel(NAME)
        if self._addresses is not None:
            self._loop.forget(self._addresses.descriptor)
            self._addresses.close()
            self._addresses = None
        if self._raised is not None:
            self._fencing.take_down(self._raised)
            self._raised = None
        self._refusal = ""

    # How it stands.

    def _stand(self) -> None:
        """By what is asked for now. Raises OSError where it cannot be."""
        try:
            stranger = self._stranger()
            if stranger:
                raise OSError(0, f"process {stranger} (sidecar, measurer or Envoy) is among those of the workload")
            if self._raised is None:
                self._put_up()
            self._lay_down_rules()
            self._mark()
        except OSError as error:
            refusal = f"no fence: {error.strerror}"
            self.close()
            self._refusal = refusal
            self._loop.after(NAME, AGAIN, self._try_again)
            raise
        self._refusal = ""

    def _try_again(self) -> None:
        with suppress(OSError):
            self._stand()
            self._tell_state(CollectorState.RUNNING, "it stands again")

    def _put_up(self) -> None:
        with ExitStack() as held:
            addresses = Addresses(self._pinned.network)
            held.callback(addresses.close)
            self._own = addresses.read()
            raised = self._fencing.put_up(self._pinned, self._loop, self._take)
            held.pop_all()
        self._raised, self._addresses = raised, addresses
        self._marking = Marking(raised.fenced.mark if raised.own is None else lambda _: None)
        self._lost = self._fencing.lost(raised)
        self._loop.watch(addresses.descriptor, self._addresses_changed)
        self._loop.look_after(NAME, LOOKS_EVERY, self._look)

    def _lay_down_rules(self) -> None:
        if self._raised is None:
            return
        rules = self._rules()
        self._left_out = max(0, len(rules) - MOST_RULES)
        self._raised.fenced.pass_only(rules)
        if self._lasting is not None:
            self._lasting.pass_only(rules)

    def _rules(self) -> tuple[Rule, ...]:
        if not self._is_shut and self._wanted is not Wanted.LISTED:
            return EVERYTHING
        own = tuple(Rule.of_address(version, address) for version, address in sorted(self._own))
        return (*LOOPBACK, *(() if self._is_shut else self._listed), *own)

    def _make_last(self) -> None:
        if self._lasting is None and self._pinned.cgroup is not None and has_own_group(self._pinned):
            with suppress(OSError):  # it is shut all the same, for as long as we live
                self._lasting = Lasting(self._pinned.cgroup.folder)
                self._lasting.pass_only(self._rules())

    def _lift(self) -> None:
        """And what an earlier measurer left."""
        if self._lasting is not None:
            self._lasting.lift()
            self._lasting = None
        elif self._pinned.cgroup is not None and has_own_group(self._pinned):
            with suppress(OSError):
                remove_left_over(self._pinned.cgroup.folder)

    def _addresses_changed(self) -> None:
        if self._addresses is None:
            return
        try:
            self._own = self._addresses.read()
            self._lay_down_rules()
        except OSError as error:
            self._die(error.strerror or "")

    def _mark(self) -> None:
        if self._raised is not None:
            self._marking.mark(self._held())

    def _stranger(self) -> int:
        """Of those that must not be fenced in, one that is; 0 for none."""
        pids = {process.pid for process in self._held()}
        return next((each for each in self._protected() if each in pids), 0)

    def _look(self) -> None:
        if self._raised is None:
            return
        try:
            self._mark()
        except OSError as error:
            self._die(f"a process cannot be marked: {error.strerror}")
            return
        lost = self._fencing.lost(self._raised)
        if lost != self._lost:
            self._lost = lost
            self._tell_state(CollectorState.OVERFLOWED, "the kernel had no room for what was refused")
        self._loop.look_after(NAME, LOOKS_EVERY, self._look)

    def _die(self, why: str) -> None:
        self.close()
        self._refusal = f"no fence: {why}"
        self._loop.after(NAME, AGAIN, self._try_again)
        self._tell_state(CollectorState.DEAD, self._refusal)

    def _tell_state(self, state: CollectorState, detail: str) -> None:
        self._channel.send(CollectorFact(boottime(), NAME, state, detail))
        self._covered()

    # What it refused.

    def _take(self, refusal: Refusal) -> None:
        if refusal.kind is Kind.UNKNOWN:
            self._tell_state(CollectorState.OVERFLOWED, "a process was made that the kernel could not mark")
            return
        now, what = monotonic(), (refusal.kind, refusal.protocol, refusal.version, refusal.address, refusal.port)
        if now - self._told.get(what, -inf) < ANYWAY:
            return
        if len(self._told) >= _MOST_KEPT:
            self._told.clear()
        self._told[what] = now
        self._channel.send(
            EgressFact(
                boottime(),
                Actor(refusal.pid, self._who(refusal.pid) or refusal.name),
                protocol_of(refusal),
                host_of(refusal),
                refusal.port,
                passage=passage_of(refusal),
            )
        )

    # What was open before it was shut.

    def _sever(self) -> Generator[None, None, int]:
        network = self._network()
        try:
            for _ in range(_MOST_PASSES):
                found = yield from outgoing(network, self._held())
                if not found:
                    return 0
                network.destroy(found)
            return len((yield from outgoing(network, self._held())))
        finally:
            network.close()


def protocol_of(refusal: Refusal) -> str:
    """As a destination has it; of what no destination can name, its number."""
    if refusal.kind is Kind.SOCKET:
        return "raw" if refusal.type == _SOCK_RAW else f"protocol {refusal.protocol}"
    return _PROTOCOLS.get(refusal.protocol, f"protocol {refusal.protocol}")


def host_of(refusal: Refusal) -> str:
    """Empty where nothing was to be reached yet."""
    if not refusal.version:
        return ""
    return str(IPv4Address(refusal.address) if refusal.version == 4 else IPv6Address(refusal.address))


def passage_of(refusal: Refusal) -> Passage:
    """To connect a datagram socket sends nothing."""
    unsent = refusal.kind is Kind.CONNECT and _PROTOCOLS.get(refusal.protocol) == UDP
    return Passage.UNSENT if unsent else Passage.REFUSED
