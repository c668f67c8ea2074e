"""The sessions that are open: one an instance, and a way to say something unasked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from attestation.detectors.alerts import Alert
from attestation.instance import InstanceId
from wire import messages
from wire.messages import Alerted, Denials, Push
from wire.versions import Version

MOST_WAITING = 32
"""Pushes a slow reader may leave lying; then its session ends, and it asks again for what is in force."""


MOST_ALERTS = 256
"""That wait for one session; of more the oldest give way."""


class Announcement:
    """A list for everybody, encoded once for each version that is spoken. It may be long, and everybody may be many."""

    def __init__(self, denials: Denials) -> None:
        self._denials = denials
        self._frames: dict[Version, bytes] = {}

    def frame(self, version: Version) -> bytes:
        found = self._frames.get(version)
        if found is None:
            found = self._frames[version] = messages.encode(self._denials, version=version)
        return found


class _Alerts:
    """Stands in an outbox for all alerts that wait."""


_ALERTS = _Alerts()


class Session:
    """One open session's outbox. None in it means: close. version: what is spoken on it."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self._outbox: asyncio.Queue[Push | Announcement | _Alerts | None] = asyncio.Queue(MOST_WAITING)
        self._newest: Announcement | None = None
        self._alerts: deque[Alert] = deque(maxlen=MOST_ALERTS)
        self.clean = False
        """The sidecar has said goodbye."""
        self.ours = False
        """We end it, so its end says nothing of the sidecar."""

    def push(self, message: Push) -> None:
        """What the peer does not know stays unsaid."""
        if messages.knows(self._version, type(message)):
            self._put(message)

    def announce(self, announcement: Announcement) -> None:
        """Only the newest counts: it takes the place of one that still waits. Peers from before 1.2 get none."""
        if not messages.knows(self._version, Denials):
            return
        waits, self._newest = self._newest is not None, announcement
        if not waits:
            self._put(announcement)

    def alert(self, alert: Alert) -> None:
        """What waits is told at once: alerts without end end no session."""
        if not messages.knows(self._version, Alerted):
            return
        waits = bool(self._alerts)
        self._alerts.append(alert)
        if not waits:
            self._put(_ALERTS)

    def end(self) -> None:
        """We end it. Whatever else waits is dropped."""
        self.ours = True
        self.end_outbox()

    def end_outbox(self) -> None:
        """Nothing more will be said."""
        while not self._outbox.empty():
            self._outbox.get_nowait()
        self._outbox.put_nowait(None)

    async def next(self) -> bytes | None:
        """The next frame; None for: close."""
        waiting = await self._outbox.get()
        if waiting is None:
            return None
        if isinstance(waiting, _Alerts):
            told = Alerted(tuple(self._alerts))
            self._alerts.clear()
            return messages.encode(told, version=self._version)
        if isinstance(waiting, Announcement):
            newest, self._newest = self._newest or waiting, None
            return newest.frame(self._version)
        return messages.encode(waiting, version=self._version)

    def _put(self, waiting: Push | Announcement | _Alerts) -> None:
        try:
            self._outbox.put_nowait(waiting)
        except asyncio.QueueFull:
            self.end()


class Sessions:
    def __init__(self) -> None:
        self._open: dict[InstanceId, Session] = {}
        self._announced: Announcement | None = None

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def opened(self, instance: InstanceId, version: Version) -> Iterator[Session]:
        """A new session of an instance ends the one before, and begins with what was announced last."""
        self.end(instance)
        session = self._open[instance] = Session(version)
        if self._announced is not None:
            session.announce(self._announced)
        try:
            yield session
        finally:
            if self._open.get(instance) is session:
                del self._open[instance]

    def push(self, instance: InstanceId, message: Push) -> None:
        session = self._open.get(instance)
        if session is not None:
            session.push(message)

    def alert(self, instance: InstanceId, alert: Alert) -> None:
        session = self._open.get(instance)
        if session is not None:
            session.alert(alert)

    def announce(self, denials: Denials) -> None:
        """Tells every session, and each that opens from now on. The list from before there was anybody goes untold."""
        if denials.version == 0:
            return
        self._announced = Announcement(denials)
        for session in tuple(self._open.values()):
            session.announce(self._announced)

    def end(self, instance: InstanceId) -> None:
        before = self._open.get(instance)
        if before is not None:
            before.end()

    def end_all(self) -> None:
        for session in self._open.values():
            session.end()

    def instances(self) -> tuple[InstanceId, ...]:
        return tuple(self._open)
