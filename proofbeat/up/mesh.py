"""The processes of one `proofbeat up`: somebody's program, and all that its identity takes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attestation.errors import Unavailable
from proofbeat import admin
from proofbeat.ephemeral import authority
from proofbeat.ephemeral.children import Child, Children, LogLine
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import Watch, in_phase
from proofbeat.up import listening
from proofbeat.up.layout import NAME, Layout
from proofbeat.up.listening import Port
from sidecar.freshness import Phase
from telemetry.names import Event

START_SECONDS = 15.0
_STDERR = 2


@dataclass(frozen=True, slots=True)
class Program:
    """command: somebody's own, run in this folder. wait: seconds until it must listen. port: where; None: found out."""

    command: Sequence[str]
    cwd: Path
    wait: float
    port: int | None


class Mesh:
    """Use within a task group that outlives it; `end` stops all of it.

    heard: told of each line of the sidecar's log.
    """

    def __init__(self, layout: Layout, tasks: asyncio.TaskGroup, heard: Callable[[LogLine], None]) -> None:
        self.layout = layout
        self.sidecar = Watch()
        self._authority = Watch()
        self._heard = heard
        self._children = Children(layout.folder, tasks)

    async def start_program(self, program: Program, *, quiet_stdout: bool) -> tuple[Child, Port]:
        """Its output is the terminal's. Raises Unavailable."""
        try:
            child = await self._children.start(
                "program",
                program.command,
                stdout=_STDERR if quiet_stdout else sys.stdout.fileno(),
                stderr=_STDERR,
                cwd=program.cwd,
            )
        except OSError as error:
            raise Unavailable(f"it cannot be started: {error.strerror}", where=program.command[0]) from error
        found = await listening.port(child.pid, program.port, within=program.wait)
        return child, found

    async def start_authority(self) -> None:
        began = now()
        self.layout.write_authority(authority.CA_NAME)
        child = await self._children.start(
            "authority",
            authority.command(self.layout.authority_config),
            heard=self._authority.hear,
        )
        if await self._authority.until(Event.LISTENING, began, within=START_SECONDS) is None:
            raise Unavailable("the authority did not start", where=self._told(child))

    async def start_sidecar(self, program: Child, port: Port) -> Child:
        """With an Envoy of its own, until calls may pass. Raises Unavailable."""
        began = now()
        token = await admin.create_token(self.layout.admin, NAME)
        self.layout.write_sidecar(program.pid, token, port)
        command = [sys.executable, "-P", "-m", "proofbeat", "sidecar", "-c", str(self.layout.sidecar_config)]
        child = await self._children.start("sidecar", [*command, "--run-envoy"], heard=self._said)
        fresh = in_phase(Phase.FRESH)
        if await self.sidecar.until(Event.PHASE, began, within=START_SECONDS, matching=fresh) is None:
            raise Unavailable("the program was not attested", where=self._told(child))
        return child

    async def end(self) -> None:
        await self._children.end()

    def _said(self, line: LogLine) -> None:
        self.sidecar.hear(line)
        self._heard(line)

    def _told(self, child: Child) -> str:
        """The last word of a program that did not do what it should, so that nobody has to look for it."""
        lines = (self.layout.folder / f"{child.name}.log").read_text().splitlines()
        return lines[-1] if lines else f"it said nothing; it {'runs' if child.running else 'ended'}"
