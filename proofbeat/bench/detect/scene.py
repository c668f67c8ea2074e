"""The demo's mesh with a service that was broken into, and a policy under which every act is over once it is undone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from attestation.calls import NAMES
from attestation.capabilities import CAPABILITIES
from attestation.errors import Unavailable
from proofbeat.acts.acts import DEADMAN, Where
from proofbeat.bench import mesh
from proofbeat.bench.detect import service
from proofbeat.bench.detect.catalogue import Attack
from proofbeat.bench.detect.falco import RULE, SEEN
from proofbeat.demo import service as demo_service
from proofbeat.demo.layout import Layout, Side, Terms
from proofbeat.demo.scene import Scene, Standing
from proofbeat.up.filter import here
from proofbeat.up.under import Under, left
from telemetry.names import Event

TOLD_WITHIN = 30.0
ASKED = "kcmp"
"""The one call that waits, where somebody answers."""
TERMS = Terms(
    interval=1.0,
    freshness=20.0,
    deadman=DEADMAN,
    pages=4,
    stated={
        "layers": {"memory": {}},
        "memory": {"period": "1s"},
        "files": {"logs": ["**/app/logs/**"]},
        "processes": {"shells": ["**/loot/tool"]},
        "egress": {"allowed": []},
        "syscalls": {
            "capabilities": [each for each in CAPABILITIES if each != "CAP_SYS_CHROOT"],
            "notified": "best-effort",
        },
        "recovery": {"drift": "auto", "tamper": "auto"},
        "detectors": {
            "alerts": [{"detector": "falco", "rules": [RULE], "class": "tamper"}],
            "unnamed": "ours",
        },
    },
    calls={"any": tuple(sorted(NAMES - {"personality", ASKED}))},
)
"""Tamper heals as drift does, or each act would take a new instance."""
GATED_TERMS = replace(
    TERMS,
    stated={
        **TERMS.stated,
        "processes": {"gate": "required"},
        "egress": {"allowed": [], "deny": "required"},
    },
)
Line = dict[str, Any]


class BrokenScene(Scene):
    """As a benchmark's other scenes, with an intruder in web's service."""

    def __init__(self, layout: Layout, tasks: asyncio.TaskGroup) -> None:
        super().__init__(layout, tasks)
        self._told: asyncio.Queue[Line] = asyncio.Queue()
        self._under: Under | None = None
        self._listeners: tuple[int, ...] = ()

    async def start_workload(self, standing: Standing) -> None:
        side = standing.side
        shutil.copy(service.__file__, side.app / "service.py")
        shutil.copy(demo_service.__file__, side.app / "served.py")
        if standing is self.web:
            _lay_out(self._where(0, 0))
            await self._start_under(standing)
            self._tasks.create_task(self._listen(standing), name="what the intruder says")
        else:
            await super().start_workload(standing)

    async def _start_under(self, standing: Standing) -> None:
        """A seccomp filter that has us asked for one call."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                self._under = Under(here(NAMES - {ASKED}), theirs.fileno())
                await super().start_workload(standing)
            self._let_go()
            self._listeners = (left(ours),)

    def command(self, side: Side) -> list[str]:
        command = super().command(side)
        return self._under.command(command) if side is self.web.side and self._under else command

    def inherited(self, side: Side) -> tuple[int, ...]:
        return (self._under.leave_at,) if side is self.web.side and self._under else ()

    def listeners(self, side: Side) -> tuple[int, ...]:
        return self._listeners if side is self.web.side else ()

    async def end(self) -> None:
        await super().end()
        self._let_go()

    def _let_go(self) -> None:
        for each in self._listeners:
            os.close(each)
        self._listeners = ()

    async def commit(self, attack: Attack) -> float:
        """Have it done in web's service. When it was, by CLOCK_BOOTTIME. Raises Unavailable where it cannot be done."""
        started = [line for line in self.web.watch.lines if line.get("event") == Event.STARTED][-1]
        where = self._where(int(started["pid"]), int(started["measurer"]))
        self._order({"code": attack.source, "act": attack.act.__name__, "where": asdict(where)})
        told = await self._heard()
        if "at" not in told:
            raise Unavailable(f"{attack.name} was not done: {told.get('failed', told)}", where="bench detect")
        return float(told["at"])

    async def undo(self) -> None:
        """Have the last act taken back."""
        self._order({"undo": True})
        while (told := await self._heard()) != {"undone": True}:
            if "failed" in told:
                raise Unavailable(f"an act was not taken back: {told['failed']}", where="bench detect")

    async def start_sidecar(self, standing: Standing, *, enrol: bool) -> None:
        """The first time with a detector beside it, which goes on whatever becomes of the sidecar."""
        await super().start_sidecar(standing, enrol=enrol)
        if standing is self.web and enrol:
            seen = self.web.side.folder / "loot" / SEEN
            command = [
                sys.executable,
                "-P",
                "-m",
                "proofbeat.bench.detect.falco",
                str(seen),
                str(standing.side.detectors),
            ]
            await self._children.start("falco", command)

    def _where(self, sidecar: int, measurer: int) -> Where:
        side = self.web.side
        loot = side.folder / "loot"
        return Where(
            app=str(side.app),
            logs=str(side.app / "logs"),
            loot=str(loot),
            tool=str(loot / "tool"),
            script=str(loot / "script.py"),
            key_socket=str(side.xds),
            sidecar=sidecar,
            measurer=measurer,
        )

    def _order(self, order: Line) -> None:
        self.attack(self.web, json.dumps(order))

    async def _heard(self) -> Line:
        try:
            async with asyncio.timeout(TOLD_WITHIN):
                return await self._told.get()
        except TimeoutError as error:
            raise Unavailable("the intruder says nothing", where="bench detect") from error

    async def _listen(self, standing: Standing) -> None:
        stdout = standing.workload.process.stdout if standing.workload else None
        while stdout is not None and (line := await stdout.readline()):
            self._told.put_nowait(json.loads(line))


class GatedScene(BrokenScene):
    """With services that have mount namespaces of their own, as containers have: what a gate takes."""

    def command(self, side: Side) -> list[str]:
        return ["unshare", "--mount", "--propagation", "private", *super().command(side)]


def staged(*, gated: bool) -> AbstractAsyncContextManager[BrokenScene]:
    """A mesh for these acts."""
    return mesh.staged(GATED_TERMS, GatedScene) if gated else mesh.staged(TERMS, BrokenScene)


def _lay_out(where: Where) -> None:
    """The folders of a workload that has logs, and what its intruder brought along."""
    for folder in (where.logs, where.loot):
        Path(folder).mkdir(exist_ok=True)
    tool = Path(where.tool)
    shutil.copy("/bin/sleep", tool)
    os.utime(tool)
    os.mkfifo(Path(where.loot) / SEEN)
    Path(where.script).write_text("import sys, time; time.sleep(float(sys.argv[1]))\n")
