"""Violations on their way to the authority: kept in order, sent until acknowledged, none dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from attestation.errors import InvalidInput, Refused, Unavailable
from attestation.violation import Violation
from sidecar.retries import Retries
from wire.messages import Report
from wire.session import AuthorityClient


class Reports:
    """sent: called with each report once the authority has it, or has refused it for good."""

    def __init__(self, client: AuthorityClient, sent: Callable[[Report, str], None]) -> None:
        self._client = client
        self._sent = sent
        self._waiting: asyncio.Queue[Report] = asyncio.Queue()

    def add(self, report: Report) -> None:
        """Never waits; the machine bounds how many one quarantine makes."""
        self._waiting.put_nowait(report)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            report = await self._waiting.get()
            self._sent(report, await self._deliver(report))

    async def _deliver(self, report: Report) -> str:
        retries = Retries()
        while True:
            try:
                await self._client.report(report)
            except (Unavailable, InvalidInput):
                # What answers nothing acknowledges nothing.
                await asyncio.sleep(retries.pause())
            except Refused as error:
                return error.sentence
            else:
                return "acknowledged"


def report_of(generation: int, violation: Violation, at_ms: int) -> Report:
    """generation: the one that the violation began. at_ms: of the fact, Unix milliseconds."""
    return Report(
        generation,
        violation.violation_class,
        violation.text,
        at_ms,
        kind=violation.kind,
        layer=violation.layer,
        subject=violation.subject,
        process=violation.process,
        rule=violation.rule,
        mend=violation.mend,
        allow=violation.allow,
        found=violation.found,
    )
