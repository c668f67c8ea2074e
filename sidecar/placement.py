"""Which measurer a sidecar has, and coming back to the node's when it was lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from attestation.errors import ProofbeatError, Unavailable, WorkloadGone
from sidecar.config import MeasurerSettings
from sidecar.measurement import Spawned, call, spawn
from sidecar.retries import Retries


class Placement:
    """spawned: one that was started beforehand. came_back: called with another one once the first was lost.
    failed: told of each try that failed.
    """

    def __init__(
        self,
        settings: MeasurerSettings,
        spawned: Spawned | None,
        *,
        came_back: Callable[[Spawned], None],
        failed: Callable[[ProofbeatError], None],
    ) -> None:
        self._settings, self._spawned = settings, spawned
        self._came_back, self._failed = came_back, failed
        self._lost = asyncio.Event()
        self._retries = Retries()

    def begin(self) -> Spawned:
        """The first one. Raises Unavailable."""
        if self._settings.socket is None:
            return self._spawned or spawn()
        if self._spawned is not None:
            self._spawned.dismiss()
        return call(self._settings.socket, self._settings.uid)

    @property
    def comes_back(self) -> bool:
        """Is it somebody else who starts it again?"""
        return self._settings.socket is not None

    @property
    def looks(self) -> bool:
        """It is lost, and not found again."""
        return self._lost.is_set()

    def lost(self) -> None:
        """Find it again."""
        self._lost.set()

    def settled(self) -> None:
        """It measures: the next loss is looked into without waiting for long."""
        self._retries.succeeded()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._lost.wait()
            await asyncio.sleep(self._retries.pause())
            try:
                found = self.begin()
            except Unavailable as error:
                self._failed(error)
            else:
                self._lost.clear()
                self._came_back(found)


def hold(pid: int) -> int:
    """A pidfd of the workload's first process, which is handed to every measurer. Raises WorkloadGone."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise WorkloadGone(
            "the workload ended before it could be pinned",
            where=f"process {pid}",
            mend="Start it again, then measure that run.",
        ) from error
