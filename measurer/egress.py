"""The collector of egress: what the workload's processes connect to beyond what policy expects.

Looked for, at a stated period, and cheaply: nothing is listed while the network namespace counts no new connection;
what was looked at before is passed over; and only for what is not expected are the processes' descriptors read. A
socket is the workload's if one of its processes holds it, whoever else lives in the same network namespace, as Envoy
does in a pod.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from math import ceil, inf, log2

from attestation.coverage import EGRESS, CollectorCoverage, Mechanism
from attestation.destinations import Destination, parse
from attestation.facts import Actor, CollectorFact, CollectorState, EgressFact, Opened
from attestation.layers import Layer
from measurer import connections
from measurer.channel import Channel
from measurer.clock import boottime, monotonic, spent
from measurer.connections import Connection, Connections, Takers, cookie_of
from measurer.loop import Loop
from measurer.processes.descriptors import open_descriptors, sockets_in
from measurer.processes.held import Held

NAME = EGRESS
ANYWAY = 30.0
"""Seconds after which all is listed although nothing was counted, and the most after which what is nobody's, or was
opened from elsewhere, is looked at again: a descriptor can be passed on."""
_SHARE = 100
"""Looking takes one part in so many of the thread's time."""
SELDOM = 10.0
"""Seconds from which on it may take more: else whoever opens sockets without end would not be looked at."""
_AT_ONCE = 64
"""Sockets, or descriptors, of a step."""
_MOST_TOLD = 256
"""Connections that one look tells. The next one goes on."""
_NEW = (-inf, 0.0)


class Egress:
    """network: opens what lists the connections; raises OSError. held: the workload's processes. covered: our coverage
    changed.
    """

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        network: Callable[[], Connections],
        held: Callable[[], list[Held]],
        covered: Callable[[], None],
    ) -> None:
        self._loop, self._channel, self._network, self._held, self._covered = loop, channel, network, held, covered
        self._connections: Connections | None = None
        self._expected: tuple[Destination, ...] | None = None
        self._every = self._interval = 1.0
        self._looking = False
        self._counted: tuple[int, ...] = ()
        self._listed = -inf
        self._seen: dict[int, tuple[float, float]] = {}
        """Cookie -> when that socket is looked at again, and how long after the last time that is."""
        self._hidden: set[Held] = set()
        self._refusal = ""

    def rule(self, expected: Sequence[str] | None, every: float) -> None:
        """From now on; what is open is told anew. expected: None where nobody asks. Raises InvalidInput."""
        self._expected = None if expected is None else tuple(map(parse, expected))
        self._every = self._interval = every
        self._seen = {}
        self._counted = ()
        self._loop.cancel(NAME)
        if self._expected is None:
            return
        try:
            self._open()
        except OSError as error:
            self._refusal = _said(error)
        if not self._looking:
            self._look()

    def close(self) -> None:
        if self._connections is not None:
            self._connections.close()
            self._connections = None

    def begins(self, connection: Connection, at: float, actor: Actor, inside: int) -> None:
        """The kernel's program saw it begin. A look that finds it later does not tell it again."""
        if self._expected is None or self._seen.get(connection.cookie, _NEW)[0] == inf:
            return
        self._seen[connection.cookie] = (inf, inf)
        if not connection.home and not self._expects(connection):
            told = (connection.protocol, connection.host, connection.port, inside)
            self._channel.send(EgressFact(at, actor, *told))

    @property
    def coverage(self) -> tuple[CollectorCoverage, ...]:
        if self._expected is None:
            return ()
        detail, latency = self._refusal or "what is over between two looks is not seen", self._interval * 1000
        return (CollectorCoverage(NAME, Layer.PROCESSES, Mechanism.POLL, latency, not self._refusal, detail=detail),)

    def _look(self) -> None:
        self._looking = True
        self._loop.begin(self._round())

    def _round(self) -> Iterator[None]:
        took, begun, refusal = 0.0, spent(), ""
        try:
            for _ in self._search():
                took += spent() - begun
                yield
                begun = spent()
        except OSError as error:
            refusal = _said(error)
            self.close()
        took += spent() - begun
        self._looking = False
        if self._expected is not None:
            self._settle(refusal, pace(self._every, self._interval, took * _SHARE))
            self._loop.look_after(NAME, self._interval, self._look)

    def _settle(self, refusal: str, interval: float) -> None:
        """Tell how it stands where that is otherwise than before."""
        if bool(refusal) != bool(self._refusal):
            state = CollectorState.DEAD if refusal else CollectorState.RUNNING
            self._channel.send(CollectorFact(boottime(), NAME, state, refusal))
        before, self._refusal, self._interval = (self._refusal, self._interval), refusal, interval
        if before != (refusal, interval):
            self._covered()

    def _open(self) -> Connections:
        if self._connections is None:
            self._connections = self._network()
        return self._connections

    # One look.

    def _search(self) -> Iterator[None]:
        network, seen = self._open(), self._seen
        now, counted = monotonic(), network.counted()
        if counted and counted == self._counted and now - self._listed < ANYWAY:
            return
        found = yield from self._list(network, now, seen)
        owners = yield from self._owners({each.inode for each in found})
        # What the kernel counts is not read in one moment: what is told was read twice.
        sure = yield from self._again(network, {each.cookie for each in found if each.inode in owners})
        if seen is not self._seen:
            return  # another policy came meanwhile: all is looked at anew
        owned = [each for each in found if each.cookie in sure]
        for each in owned[:_MOST_TOLD]:
            seen[each.cookie] = (inf, inf)
            self._tell(each, owners[each.inode])
        strangers = [each.cookie for each in found if each.inode not in owners]
        for cookie in strangers:
            self._later(seen, cookie, now)
        young = any(seen[cookie][1] < ANYWAY for cookie in strangers)
        self._counted, self._listed = () if young or len(owned) > _MOST_TOLD else counted, now

    def _list(
        self, network: Connections, now: float, seen: dict[int, tuple[float, float]]
    ) -> Generator[None, None, list[Connection]]:
        """Connections that were opened from here to where nobody expects them, and are due."""
        there_is, fresh, takers = set(), [], Takers()
        for number, (protocol, body) in enumerate(network.each()):
            if number % _AT_ONCE == 0:
                yield
            cookie = cookie_of(body)
            there_is.add(cookie)
            if now < seen.get(cookie, _NEW)[0]:
                continue
            each = connections.parse(body, protocol)
            if each is None:
                continue
            if each.takes:
                takers.add(each)
            elif each.home or self._expects(each):
                seen[cookie] = (inf, inf)
            elif each.inode:
                fresh.append(each)
        for cookie in seen.keys() - there_is:
            del seen[cookie]
        found = []
        for each in map(takers.judge, fresh):
            if each.opened is Opened.HERE:
                found.append(each)
            else:
                self._later(seen, each.cookie, now)
        return found

    def _expects(self, each: Connection) -> bool:
        return any(e.holds(each.version, each.address, each.port, each.protocol) for e in self._expected or ())

    def _later(self, seen: dict[int, tuple[float, float]], cookie: int, now: float) -> None:
        wait = min(ANYWAY, max(self._every, 2 * seen.get(cookie, _NEW)[1]))
        seen[cookie] = (now + wait, wait)

    def _owners(self, wanted: set[int]) -> Generator[None, None, dict[int, Held]]:
        """Inode -> a process of the workload that holds it. Raises PermissionError where one of them stays hidden."""
        owners: dict[int, Held] = {}
        hidden = set()
        for process in self._held() if wanted else ():
            yield
            folder = process.read(open_descriptors)
            if folder is None:
                if process.lives():
                    hidden.add(process)
                continue
            try:
                for number, inode in enumerate(sockets_in(folder)):
                    if inode in wanted:
                        owners.setdefault(inode, process)
                    if number % _AT_ONCE == _AT_ONCE - 1:
                        yield
            except PermissionError:
                hidden.add(process)
            except (ProcessLookupError, FileNotFoundError):  # it has ended
                continue
            finally:
                os.close(folder)
            if len(owners) == len(wanted):
                break
        self._hidden, before = hidden, self._hidden
        if hidden & before:  # who is only about to end is hidden as well
            raise PermissionError(0, f"the descriptors of process {next(iter(hidden & before)).pid} may not be read")
        return owners

    def _again(self, network: Connections, cookies: set[int]) -> Generator[None, None, set[int]]:
        """Which of these were opened from here, or are over."""
        sure = set(cookies)
        for number, (protocol, body) in enumerate(network.each() if cookies else ()):
            if number % _AT_ONCE == 0:
                yield
            if cookie_of(body) in cookies:
                each = connections.parse(body, protocol)
                if each is not None and each.opened is Opened.THERE:
                    sure.discard(each.cookie)
        return sure

    def _tell(self, each: Connection, process: Held) -> None:
        actor, inside = Actor(process.pid, process.executable()), process.pid_inside()
        self._channel.send(EgressFact(boottime(), actor, each.protocol, each.host, each.port, inside))


def _said(error: OSError) -> str:
    return f"connections cannot be told: {error.strerror}"


def pace(every: float, before: float, needed: float) -> float:
    """Seconds until the next look: as asked, doubled as often as it takes; the same as before for small differences."""
    needed = min(needed, SELDOM)
    if before / 4 <= needed <= before or needed <= every == before:
        return before
    return every * 2 ** max(0, ceil(log2(needed / every))) if needed > every else every
