"""The socket that detectors' alerts come to, a line an alert: who may, how much of it is looked at, what is answered.

Everything happens in callbacks of the event loop, each of which does little: whoever writes without end is read slowly,
and never keeps anything else of this process waiting for longer than a turn takes.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from attestation.detectors import reading, relay
from attestation.detectors.alerts import Detector, Heard
from attestation.detectors.relay import Dropped, Relays, Taken, Turned
from attestation.errors import InvalidConfiguration, InvalidInput
from sidecar import clock
from sidecar.admission import KeyRules
from sidecar.config import DetectorSettings, WorkloadSettings
from sidecar.detectors.lines import Allowance, Lines
from sidecar.detectors.questions import Questions
from xds.errors import PeerError, SocketInUse, SocketUnusable
from xds.listening import Endpoint, Listening, listen
from xds.peer import Peer, identify

MOST_CONNECTIONS = 8
RATE, BURST = 500.0, 1000.0
"""Lines of one connection that are looked at a second, and at once."""
BEHIND = 1.0
"""Seconds for which lines may wait to be looked at until alerts count as missed: they are worth something at once."""
_TURN = 32
"""Lines that are looked at before anything else has its turn: about a millisecond."""
_BYTES = 64 * 1024
_PAUSE, _CALLERS_PAUSE = 0.05, 0.5
_CALLERS, _MOST_CALLERS = 10.0, 20.0
_BACKLOG_REASON = "alerts come faster than they are read"


class Owner(Protocol):
    """Who is told what comes."""

    def heard(self, heard: Heard) -> None: ...
    def joined(self, detector: Detector) -> None:
        """A connection brings it."""

    def left(self, detector: Detector) -> None: ...
    def missed(self, detector: Detector | None, why: str) -> None:
        """Something came that may have been an alert, and is lost. None: nobody knows whose."""

    def refused(self, why: str) -> None:
        """Somebody is not let in."""


class AlertSocket:
    """questions: who says whether a caller is the workload."""

    def __init__(
        self, settings: DetectorSettings, workload: WorkloadSettings, owner: Owner, questions: Questions
    ) -> None:
        self._settings, self._owner, self._questions = settings, owner, questions
        self._uids = frozenset(settings.allow.uids or (os.getuid(),))
        executables = frozenset(settings.allow.executables)
        self._rules = KeyRules(workload.pid, workload.cgroup, executables, "detectors.allow.executables")
        self._connections: set[Connection] = set()
        self._callers = Allowance(_CALLERS, _MOST_CALLERS, clock.now().boot)
        self._listening: Listening | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raises InvalidConfiguration. Nothing to do where settings name no socket."""
        if self._settings.socket is None:
            return
        try:
            self._listening = listen(Endpoint(self._settings.socket, mode=self._settings.socket_mode))
        except (SocketInUse, SocketUnusable) as error:
            raise InvalidConfiguration(str(error), where="detectors.socket") from error
        self._loop = loop
        loop.add_reader(self._listening.socket.fileno(), self._call)

    def close(self) -> None:
        if self._listening is not None and self._loop is not None:
            self._loop.remove_reader(self._listening.socket.fileno())
            self._listening.close()
            self._listening = None
        for each in list(self._connections):
            each.end()

    def _call(self) -> None:
        """One caller a turn, and not too many a second: each costs some looks into /proc."""
        if self._listening is None or self._loop is None:
            return
        if not self._callers.take(clock.now().boot):
            self._loop.remove_reader(self._listening.socket.fileno())
            self._loop.call_later(_CALLERS_PAUSE, self._listen_again)
            return
        with suppress(OSError):  # it has gone again
            connection, _ = self._listening.socket.accept()
            connection.setblocking(False)
            self._receive(connection)

    def _listen_again(self) -> None:
        if self._listening is not None and self._loop is not None:
            self._loop.add_reader(self._listening.socket.fileno(), self._call)

    def _receive(self, connection: socket.socket) -> None:
        try:
            peer = identify(connection)
        except PeerError as error:
            self._refuse(connection, str(error))
            return
        try:
            why = self._refusal(peer)
            if why is not None:
                self._refuse(connection, why)
                return
            self._vouched_for(connection, peer)
        finally:
            peer.close()

    def _refusal(self, peer: Peer) -> str | None:
        if peer.uid not in self._uids:
            return f"user {peer.uid} may not bring alerts (process {peer.pid}): detectors.allow.uids"
        if len(self._connections) >= MOST_CONNECTIONS:
            return f"{MOST_CONNECTIONS} connections bring alerts already"
        return self._rules.refusal(peer.pid)

    def _vouched_for(self, connection: socket.socket, peer: Peer) -> None:
        """Nothing is read before the measurer has said whether it is a process of the workload."""
        assert self._loop is not None  # noqa: S101 - there are no callers before the start
        begun = Connection(connection, self._loop, self._owner, self._connections.discard)
        self._connections.add(begun)
        pid = peer.pid

        def answered(workload: bool | None, _: object) -> None:
            if workload is True:
                begun.turn_away(f"process {pid} belongs to the workload")
                self._owner.refused(f"process {pid} belongs to the workload, and wanted to bring alerts")
            else:
                begun.read()

        self._questions.ask(pid, clock.now().boot, answered)

    def _refuse(self, connection: socket.socket, why: str) -> None:
        with connection, suppress(OSError):
            connection.send(relay.encode(Turned(0, why)))
        self._owner.refused(why)


class Connection:
    """One relay. ended: called once when it is over."""

    def __init__(
        self,
        connection: socket.socket,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        ended: Callable[[Connection], object],
    ) -> None:
        self._socket, self._loop, self._owner, self._ended = connection, loop, owner, ended
        self._lines = Lines(reading.MOST_BYTES)
        self._waiting: deque[bytes | None] = deque()
        self._behind_since: float | None = None
        self._allowance = Allowance(RATE, BURST, loop.time())
        self._brings: set[Detector] = set()
        self._read = self._told = 0
        self._over = False

    def read(self) -> None:
        """From now on."""
        if not self._over:
            self._loop.add_reader(self._socket.fileno(), self._readable)

    def turn_away(self, why: str) -> None:
        self._answer(Turned(0, why))
        self.end()

    def end(self) -> None:
        if self._over:
            return
        self._over = True
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._ended(self)
        for detector in self._brings:
            self._owner.left(detector)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hung_up()
            return
        self._waiting.extend(self._lines.cut(data))
        if self._waiting:
            self._loop.remove_reader(self._socket.fileno())
            self._work()

    def _work(self) -> None:
        """A few of the lines that wait; nothing more is read until all of them were looked at."""
        if self._over:
            return
        done = 0
        while self._waiting and done < _TURN and self._allowance.take(self._loop.time()):
            self._take(self._waiting.popleft())
            done += 1
        if self._read > self._told:
            self._told = self._read
            self._answer(Taken(self._read))
        if not self._waiting:
            self._behind_since = None
            self.read()
            return
        self._late()
        if done == _TURN:
            self._loop.call_soon(self._work)
        else:
            self._loop.call_later(_PAUSE, self._work)

    def _late(self) -> None:
        now = self._loop.time()
        if self._behind_since is None:
            self._behind_since = now
        elif now - self._behind_since > BEHIND:
            self._behind_since = now
            self._missed(_BACKLOG_REASON)

    def _take(self, line: bytes | None) -> None:
        try:
            word = relay.decode(line) if line is not None else None
            if word is not None:
                self._said(word)
                return
            self._read += 1
            if line == b"":
                return
            if line is None:
                raise InvalidInput(f"a line of more than {reading.MOST_BYTES} bytes", where="detector")
            heard = reading.read(line)
        except InvalidInput as error:
            self._answer(Turned(self._read, error.sentence))
            self._missed(f"a line that is not understood: {error.what}")
            return
        self._join(heard.detector)
        self._owner.heard(heard)

    def _said(self, word: relay.Word) -> None:
        match word:
            case Relays(detector):
                self._join(detector)
            case Dropped(lines):
                self._missed(f"its relay gave up {lines} lines that it could not tell in time")
            case _:
                raise InvalidInput("a word that is a sidecar's to say", where="detector")

    def _hung_up(self) -> None:
        if self._lines.half:
            self._missed("it ended in the middle of a line")
            self._answer(Turned(self._read + 1, "a line without its end"))
        self.end()

    def _join(self, detector: Detector) -> None:
        if detector not in self._brings:
            self._brings.add(detector)
            self._owner.joined(detector)

    def _missed(self, why: str) -> None:
        for detector in self._brings or (None,):
            self._owner.missed(detector, why)

    def _answer(self, word: relay.Word) -> None:
        """Who reads nothing is told nothing: a later count says the same and more."""
        with suppress(OSError):
            self._socket.send(relay.encode(word))
