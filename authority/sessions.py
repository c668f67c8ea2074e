"""The sessions that are open: one an instance, and a way to say something unasked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from attestation.instance import InstanceId
from wire.messages import Push

MOST_WAITING = 32
"""Pushes a slow reader may leave lying; then its session ends, and it asks again for what is in force."""


class Session:
    """One open session's outbox. None in it means: close."""

    def __init__(self) -> None:
        self._outbox: asyncio.Queue[Push | None] = asyncio.Queue(MOST_WAITING)
        self.clean = False
        """The sidecar has said goodbye."""
        self.ours = False
        """We end it, so its end says nothing of the sidecar."""

    def push(self, message: Push) -> None:
        try:
            self._outbox.put_nowait(message)
        except asyncio.QueueFull:
            self.end()

    def end(self) -> None:
        """We end it. Whatever else waits is dropped."""
        self.ours = True
        self.end_outbox()

    def end_outbox(self) -> None:
        """Nothing more will be said."""
        while not self._outbox.empty():
            self._outbox.get_nowait()
        self._outbox.put_nowait(None)

    async def next(self) -> Push | None:
        return await self._outbox.get()


class Sessions:
    def __init__(self) -> None:
        self._open: dict[InstanceId, Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def opened(self, instance: InstanceId) -> Iterator[Session]:
        """A new session of an instance ends the one before."""
        self.end(instance)
        session = self._open[instance] = Session()
        try:
            yield session
        finally:
            if self._open.get(instance) is session:
                del self._open[instance]

    def push(self, instance: InstanceId, message: Push) -> None:
        session = self._open.get(instance)
        if session is not None:
            session.push(message)

    def end(self, instance: InstanceId) -> None:
        before = self._open.get(instance)
        if before is not None:
            before.end()

    def end_all(self) -> None:
        for session in self._open.values():
            session.end()

    def instances(self) -> tuple[InstanceId, ...]:
        return tuple(self._open)
