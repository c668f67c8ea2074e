"""The processes of one `proofbeat up`: somebody's program, and all that its identity takes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from attestation.errors import Unavailable
from proofbeat import admin
from proofbeat.ephemeral import authority
from proofbeat.ephemeral.children import END_SECONDS, Child, Children, LogLine
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import Watch, in_phase
from proofbeat.up import listening, program
from proofbeat.up.answering import Answering
from proofbeat.up.layout import CA_SECONDS, NAME, Layout
from proofbeat.up.listening import Port
from proofbeat.up.program import Ended, Instance, Program
from sidecar.states import Phase
from telemetry.names import Event
from telemetry.settings import TelemetrySettings

MOST_TRIES = 8
"""Enrolments that are refused, and rounds, until a sidecar is given up. Not seconds: on a busy machine they are few."""
_TRIES = (Event.ENROLMENT_REFUSED, Event.ROUND, Event.ROUND_FAILED)


class Mesh:
    """Use within a task group that outlives it; `end` stops all of it. Every start raises Unavailable.

    heard: told of each line of the sidecar's log.
    """

    def __init__(self, layout: Layout, tasks: asyncio.TaskGroup, heard: Callable[[LogLine], None]) -> None:
        self.layout = layout
        self._heard = heard
        self._children = Children(layout.folder, tasks)
        self._instance: Instance | None = None
        self._authority: Child | None = None
        self._sidecar: Child | None = None
        self._answering: Answering | None = None
        self._authority_said, self._sidecar_said = Watch(), Watch()

    async def start_program(
        self, wanted: Program, *, quiet_stdout: bool, intruded: bool, under: bytes | None = None
    ) -> tuple[Instance, Port]:
        """Until it listens. intruded: with an intruder beside it. under: this seccomp filter, whose listener the
        sidecar is given.
        """
        if under is not None:
            self._instance, listener = await program.start_under(
                wanted, under, self._children, quiet_stdout=quiet_stdout
            )
            self._answering = Answering(listener)
        else:
            start = program.start_intruded if intruded else program.start
            self._instance = await start(wanted, self._children, quiet_stdout=quiet_stdout)
        async with self.running():
            return self._instance, await listening.port(self._instance.reaper.pid, wanted.port, within=wanted.wait)

    async def start_authority(self) -> None:
        began = now()
        self.layout.write_authority(CA_SECONDS, TelemetrySettings())
        self._authority = await self._children.start(
            "authority", authority.command(self.layout.authority_config), heard=self._authority_said.hear
        )
        async with self.running():
            await self._authority_said.when(lambda: self._authority_said.first(Event.LISTENING, began))

    async def start_sidecar(self, instance: Instance, port: Port) -> None:
        """With an Envoy of its own, until calls may pass."""
        began = now()
        async with self.running():
            token = await admin.create_token(self.layout.authority_admin, NAME)
        self.layout.write_settings(instance.pid, token, port)
        command = [sys.executable, "-P", "-m", "proofbeat", "sidecar", "-c", str(self.layout.workload.config)]
        listeners = [self._answering.hand_over()] if self._answering is not None else []
        self._sidecar = await self._children.start(
            "sidecar",
            [*command, "--run-envoy", *(f"--listener={each}" for each in listeners)],
            heard=self._said,
            also=listeners,
        )
        self._let_go()
        async with self.running():
            attested = await self._sidecar_said.when(lambda: attested_since(began, self._sidecar_said))
        if not attested:
            raise self._sidecar.failed(f"your program was not attested in {MOST_TRIES} tries")

    @property
    def said(self) -> Watch:
        """By all its sidecars."""
        return self._sidecar_said

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The block is left as soon as anything ends that was started. Raises Ended for the program, else Unavailable.

        The sidecar ends with its workload, and may be the first that is seen to.
        """
        reaper = self._instance.reaper if self._instance else None
        started = [each for each in (reaper, self._authority, self._sidecar) if each is not None]
        try:
            async with self._children.needing(*started):
                yield
        except Unavailable:
            if self._instance is None or not self._instance.gone:
                raise
            raise Ended(await self._instance.reaper.process.wait()) from None

    def order(self, source: str) -> None:
        """To the intruder beside the program."""
        if self._instance is not None:
            self._instance.order(source)

    async def end_instance(self) -> None:
        """The program with all that it started, and the sidecar with it, as it does by itself."""
        if self._instance is not None:
            await self._instance.end()
        if self._sidecar is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await self._sidecar.process.wait()
            await self._sidecar.end()
        self._instance = self._sidecar = None
        self._let_go()

    async def end(self) -> None:
        self._let_go()
        await self._children.end()

    def _let_go(self) -> None:
        """Of what the sidecar answers, or nobody any more."""
        if self._answering is not None:
            self._answering.close()
            self._answering = None

    def _said(self, line: LogLine) -> None:
        self._sidecar_said.hear(line)
        self._heard(line)


def attested_since(began: float, said: Watch) -> bool | None:
    """Whether a sidecar is attested; None while it has tries left."""
    if said.first(Event.PHASE, began, in_phase(Phase.FRESH)) is not None:
        return True
    tries = sum(line.get("event") in _TRIES for line in said.since(began))
    return False if tries >= MOST_TRIES else None
