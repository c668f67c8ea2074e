"""What the authority is told of detectors: where this instance runs, and alerts that policy only observes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from attestation.detectors.alerts import Alert, Whereabouts
from attestation.errors import InvalidInput, Refused, Unavailable
from sidecar.retries import Retries
from wire.messages import Noted, Placed
from wire.session import AuthorityClient

APART = 10.0
"""Seconds between two alerts that are told although they close nothing."""


async def placed(client: AuthorityClient, where: Whereabouts) -> None:
    """Once a session, for as long as there are any: the authority knows it no longer than that."""
    retries = Retries()
    while True:
        await client.wait_connected()
        try:
            await client.tell(Placed(where))
        except (Unavailable, InvalidInput):
            await asyncio.sleep(retries.pause())
        except Refused:
            await client.wait_lost()
        else:
            retries = Retries()
            await client.wait_lost()


class Notes:
    """The latest of them, and how many came before it untold."""

    def __init__(self, client: AuthorityClient) -> None:
        self._client = client
        self._latest: Alert | None = None
        self._count = 0
        self._there = asyncio.Event()

    def add(self, alert: Alert) -> None:
        """Never waits."""
        self._latest = alert
        self._count += 1
        self._there.set()

    async def run(self) -> None:
        """Until cancelled. What finds no session stays in the log alone."""
        while True:
            await self._there.wait()
            self._there.clear()
            alert, untold, self._count = self._latest, self._count - 1, 0
            if alert is not None:
                with suppress(Unavailable, InvalidInput, Refused):
                    await self._client.tell(Noted(alert, untold))
            await asyncio.sleep(APART)
